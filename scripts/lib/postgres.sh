# A throw-away PostgreSQL for the scripts that need one. To be sourced by bash, with `set -euo pipefail`.
#
#   postgres_start    starts it and sets DATABASE_URL; it is stopped and removed when the script ends
#   postgres_migrate  applies migrations/ in order
#
# PG_BIN_DIR names the directory of PostgreSQL's programs, if it is not to be looked for.

POSTGRES_MAJOR_MIN=15

# Prints the directory of `initdb` and `postgres`: the PATH's, or the highest version in Debian's directories.
postgres_bin_dir() {
    local dir major
    for dir in "${PG_BIN_DIR:-}" \
        "$(dirname "$(readlink -f "$(command -v initdb || echo /nowhere/initdb)")")" \
        $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV); do
        if [[ -x $dir/initdb && -x $dir/postgres ]]; then
            major=$("$dir/postgres" --version | sed -E 's/^[^)]*\) ([0-9]+).*/\1/')
            if ((major >= POSTGRES_MAJOR_MIN)); then
                echo "$dir"
                return 0
            fi
        fi
    done
    echo "no PostgreSQL $POSTGRES_MAJOR_MIN or newer: install it, or set PG_BIN_DIR" >&2
    return 1
}

# PostgreSQL refuses root, so root runs it as somebody else.
postgres_account() {
    if [[ $(id -u) != 0 ]]; then
        id -un
    elif id postgres >/dev/null 2>&1; then
        echo postgres
    else
        echo nobody
    fi
}

postgres_run() {
    local account
    account=$(postgres_account)
    # Not the caller's directory: the account may have no way into it.
    if [[ $(id -un) == "$account" ]]; then
        (cd / && "$@")
    else
        (cd / && setpriv --reuid "$account" --regid "$(id -g "$account")" --clear-groups -- "$@")
    fi
}

postgres_start() {
    local password try
    POSTGRES_BIN_DIR=$(postgres_bin_dir)
    POSTGRES_DIR=$(mktemp -d /tmp/hookswitch-postgres.XXXXXX)
    trap postgres_stop EXIT
    password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    (umask 077 && echo "$password" >"$POSTGRES_DIR/password")
    chown -R "$(postgres_account)" "$POSTGRES_DIR"
    postgres_run "$POSTGRES_BIN_DIR/initdb" --pgdata "$POSTGRES_DIR/data" --username hookswitch --pwfile "$POSTGRES_DIR/password" \
        --auth scram-sha-256 --encoding UTF8 --locale C --no-sync --no-instructions >"$POSTGRES_DIR/initdb.log"
    export PGPASSWORD=$password PGHOST=127.0.0.1 PGUSER=hookswitch PGDATABASE=postgres
    for try in 1 2 3 4 5; do
        export PGPORT=$((20000 + RANDOM % 20000))
        if postgres_run "$POSTGRES_BIN_DIR/pg_ctl" start --wait --silent --pgdata "$POSTGRES_DIR/data" \
            --log "$POSTGRES_DIR/data/log" --options "-p $PGPORT -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"; then
            break
        elif ((try == 5)); then
            tail "$POSTGRES_DIR/data/log" >&2
            return 1
        fi
    done
    psql --quiet --no-psqlrc --command 'create database hookswitch'
    export PGDATABASE=hookswitch
    export DATABASE_URL="postgres://hookswitch:$password@127.0.0.1:$PGPORT/hookswitch?sslmode=disable"
}

postgres_stop() {
    if [[ -e $POSTGRES_DIR/data/postmaster.pid ]]; then
        postgres_run "$POSTGRES_BIN_DIR/pg_ctl" stop --mode immediate --wait --silent --pgdata "$POSTGRES_DIR/data"
    fi
    rm -rf "$POSTGRES_DIR"
}

postgres_migrate() {
    local file transaction
    for file in migrations/*.sql; do
        [[ -e $file ]] || break
        transaction=--single-transaction
        # sqlx's own mark for what PostgreSQL refuses inside a transaction.
        if head -n 1 "$file" | grep -q '^-- no-transaction'; then
            transaction=
        fi
        psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 $transaction --file "$file"
    done
}
