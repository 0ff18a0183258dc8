//! A private PostgreSQL server below the data directory.
