# The service alone. It needs a PostgreSQL, by DATABASE_URL: none is in the image.
#
#   docker build --tag hookswitch .
#   docker run --env DATABASE_URL=… --env TWILIO_ACCOUNT_SID=… --env TWILIO_AUTH_TOKEN=… --publish 8080:8080 hookswitch

FROM rust:1-bookworm AS build
WORKDIR /build

# Dependencies by themselves, so that a change of ours does not build them again.
COPY Cargo.toml Cargo.lock sqlx.toml build.rs ./
COPY .cargo .cargo
RUN mkdir -p src tests/it bench/webhooks migrations \
    && echo 'fn main() {}' | tee src/main.rs tests/it/main.rs > bench/webhooks/main.rs \
    && touch src/lib.rs \
    && cargo build --release --locked \
    && rm -r src tests bench migrations

COPY config config
COPY migrations migrations
COPY .sqlx .sqlx
COPY src src
# Copies keep their times, which are older than what was just built.
RUN mkdir -p tests/it bench/webhooks \
    && touch tests/it/main.rs bench/webhooks/main.rs src/main.rs src/lib.rs build.rs \
    && cargo build --release --locked --bin hookswitch

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home --home-dir /var/lib/hookswitch hookswitch
COPY --from=build /build/target/release/hookswitch /usr/local/bin/hookswitch
COPY LICENSE /usr/share/doc/hookswitch/LICENSE
USER hookswitch
WORKDIR /var/lib/hookswitch
ENV HOOKSWITCH__HTTP__LISTEN=0.0.0.0:8080
EXPOSE 8080
# GET /healthz and /readyz tell how it is; whoever runs the container asks them.
ENTRYPOINT ["hookswitch"]
CMD ["serve"]
