"""The warnings about Jobs: one read for many."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest

from mlperf_operator.cluster import ApiError, Cluster
from mlperf_operator.job_warnings import FRESH, JobWarnings
from mlperf_operator.observed import format_time
from unit.core.builders import NOW, job

EARLIER = NOW - timedelta(minutes=1)
FIRST, SECOND = (replace(job(), uid=uid) for uid in ("1", "2"))


class Events:
    """A cluster with Events."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.failure: ApiError | None = None
        self.found: list[dict[str, Any]] = []

    def warn(self, uid: str, message: str, **times: str) -> None:
        self.found.append({"involvedObject": {"uid": uid}, "message": message, **times})

    async def warnings_about_jobs(self, namespace: str) -> list[dict[str, Any]]:
        self.asked.append(namespace)
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        return self.found


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def warnings(events: Events) -> JobWarnings:
    return JobWarnings(cast("Cluster", events))


async def test_a_jobs_warnings_since_a_moment_come_in_their_order(events: Events, warnings: JobWarnings) -> None:
    events.warn("1", "late", lastTimestamp=format_time(NOW))
    events.warn("1", "early", lastTimestamp=format_time(EARLIER))
    events.warn("1", "of an earlier attempt", lastTimestamp=format_time(EARLIER - timedelta(hours=1)))
    events.warn("2", "another's")
    assert await warnings.about(FIRST, EARLIER, NOW) == ("early", "late")


async def test_many_jobs_of_a_namespace_are_asked_for_once(events: Events, warnings: JobWarnings) -> None:
    events.warn("2", "why")
    asking = [warnings.about(each, EARLIER, NOW) for each in (FIRST, SECOND) * 10]
    assert await asyncio.gather(*asking) == [(), ("why",)] * 10
    assert await warnings.about(SECOND, EARLIER, NOW + FRESH) == ("why",)
    assert len(events.asked) == 1


async def test_an_old_answer_is_asked_for_again(events: Events, warnings: JobWarnings) -> None:
    assert await warnings.about(FIRST, EARLIER, NOW) == ()
    events.warn("1", "why")
    assert await warnings.about(FIRST, EARLIER, NOW + FRESH + timedelta(seconds=1)) == ("why",)


async def test_each_namespace_has_its_own_answer(events: Events, warnings: JobWarnings) -> None:
    await warnings.about(FIRST, EARLIER, NOW)
    await warnings.about(replace(FIRST, namespace="other"), EARLIER, NOW)
    assert events.asked == [FIRST.namespace, "other"]


async def test_a_failure_is_told_and_not_kept(events: Events, warnings: JobWarnings) -> None:
    events.failure = ApiError(500, "InternalError", "etcd is away")
    with pytest.raises(ApiError):
        await warnings.about(FIRST, EARLIER, NOW)
    events.failure = None
    assert await warnings.about(FIRST, EARLIER, NOW) == ()
