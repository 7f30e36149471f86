# One image for every part of the fleet; the command says which. What goes in is named, with hashes,
# in the two lock files (`make lock` renews them). BuildKit's `# syntax=` line is left out on purpose:
# it would fetch an image for nothing that is used here.

FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY requirements.lock requirements-build.lock ./
RUN python -m venv --without-pip /opt/fleet \
 && pip --python /opt/fleet/bin/python install -q --require-hashes -r requirements.lock \
 && pip install -q --require-hashes -r requirements-build.lock
COPY . .
# The build's own tools are locked too, so nothing is fetched for it.
RUN pip wheel -q --no-deps --no-build-isolation --no-index -w /dist . \
 && pip --python /opt/fleet/bin/python install -q --no-deps --no-index /dist/*.whl

FROM python:3.13-slim
COPY --from=build /opt/fleet /opt/fleet
COPY deploy/image/healthy /usr/local/bin/
# A volume that is mounted on one of these takes its owner.
RUN install -d -o 10001 -g 10001 /var/lib/fleet /var/lib/fleet/evidence /definitions
ENV PATH=/opt/fleet/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HEALTH_HOST=0.0.0.0 \
    HEALTH_PORT=9464 \
    HOME=/tmp \
    STORE_URL=sqlite:////var/lib/fleet/fleet.sqlite3
# Handlers of one's own are looked for where a command starts.
WORKDIR /handlers
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --start-interval=1s CMD ["healthy"]
ENTRYPOINT ["fleet"]
CMD ["--help"]
