# syntax=docker/dockerfile:1
# The image of sidecar: the daemon, the libraries it is linked with, and nothing else.
#
# `cargo xtask image` builds it with whatever engine is there, labels it, and checks what came out.
# By hand, `docker build .` and `podman build .` do. Where HTTPS is intercepted, hand over the bundle of
# roots to trust: `--secret id=roots,src=FILE`.

# Debian 12, whose security updates bring the compiler of both sides and its LLVM.
ARG BASE=docker.io/library/debian:bookworm-slim

FROM ${BASE} AS tools
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update --quiet=2 \
    && apt-get install --yes --no-install-recommends --quiet=2 \
        binutils ca-certificates cargo-web g++ libstd-rust-web-dev llvm-22-dev rust-web-src rustc-web \
    && rm -rf /var/lib/apt/lists/*
# Versions of their own, so that a change of the sources does not build them again.
ARG BPF_LINKER=0.13.0
ARG CARGO_AUDITABLE=0.7.7
ENV CARGO_HOME=/var/cache/cargo
RUN --mount=type=secret,id=roots \
    if [ -e /run/secrets/roots ]; then export CARGO_HTTP_CAINFO=/run/secrets/roots; fi \
    && export LLVM_SYS_221_PREFIX=/usr/lib/llvm-22 RUSTFLAGS=-L/usr/lib/llvm-22/lib \
    && export PATH="/usr/lib/llvm-22/bin:$PATH" CARGO_TARGET_DIR=/tmp/tools \
    && cargo install --locked --root /usr/local bpf-linker@${BPF_LINKER} \
        --no-default-features --features llvm-22 \
    && cargo install --locked --root /usr/local cargo-auditable@${CARGO_AUDITABLE} \
    && rm -rf /tmp/tools "$CARGO_HOME"

FROM tools AS build
# Where the sources are is not in the binary: two builds in two places are equal.
ARG DIRECTORY=/usr/src/sidecar
WORKDIR ${DIRECTORY}
# Named in full: some engines take the step of another directory for this one.
COPY . ${DIRECTORY}/
# Beside the daemon and its libraries the image has what scanners look for: the packages that the libraries are of, and their
# licences. It is one step, since some storages copy everything for each.
RUN --mount=type=secret,id=roots \
    --mount=type=cache,target=/var/cache/cargo \
    if [ -e /run/secrets/roots ]; then export CARGO_HTTP_CAINFO=/run/secrets/roots; fi \
    && cargo run --locked --package xtask -- build --release --auditable \
    && mkdir -p /image \
    && strip -o /image/sidecar target/release/sidecar \
    && ldd /image/sidecar | grep --only-matching '/lib[^ ]*' \
        | xargs cp --dereference --parents --target-directory=/image \
    && rm -rf target \
    && mkdir -p /image/etc /image/var/lib/dpkg/status.d \
    && cp --dereference /etc/os-release /image/etc/os-release \
    && ldd /image/sidecar | grep --only-matching '/lib[^ ]*' | xargs dpkg-query --search \
        | cut --delimiter=: --fields=1 | sort --unique \
        | while read -r package; do \
            dpkg-query --status "$package" >"/image/var/lib/dpkg/status.d/$package" \
            && cp --dereference --parents --target-directory=/image "/usr/share/doc/$package/copyright" \
            || exit 1; \
        done

FROM scratch
LABEL org.opencontainers.image.title="sidecar" \
    org.opencontainers.image.description="A transparent, eBPF-assisted networking sidecar: mutual TLS and telemetry without iptables." \
    org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /image /
USER 4195:4195
ENTRYPOINT ["/sidecar"]
