# The operator's image, which `collect` runs in too. Build it from the folder that hack/operator_context.py fills:
#   python3 hack/operator_context.py build/operator
#   docker build build/operator
# The wheels are those of uv.lock, for one machine or several; nothing is fetched while the image is built.
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS build
COPY wheels /wheels
RUN python3 -m venv /opt/mlperf-operator \
    && /opt/mlperf-operator/bin/python -m pip install --no-index --no-deps --no-cache-dir \
        --find-links=/wheels --requirement=/wheels/requirements.txt /wheels/mlperf_operator-*.whl \
    && /opt/mlperf-operator/bin/python -m pip uninstall --yes --quiet pip setuptools \
    && python3 -m compileall -q /opt/mlperf-operator/lib

FROM ${BASE_IMAGE}
COPY --from=build /opt/mlperf-operator /opt/mlperf-operator
ENV PATH=/opt/mlperf-operator/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
ENTRYPOINT ["mlperf-operator"]
CMD ["controller"]
