"""KWOK's stages: what a node does with its pods, step by step, as a kubelet would report it.

A pod's init containers end in order, each in a write of its own; the native sidecar starts with the last; then the
main container runs and ends, and at last `collect` with its report. A failure is chosen by the run's nodeSelector.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from fleet.reported import COUNT, FIGURE, FIGURE_DIGITS, LINES, UID, VERDICTS

FAILS_LABEL = "fleet.mlperf.dev/fails-"
"""On every node, with a stage's name behind it: a run that asks for it fails in that stage with exit code 65."""


@dataclass(frozen=True)
class Delays:
    """Milliseconds before each step: those of an init container, of the main one, of collect, of a deletion."""

    prepare: int = 0
    run: int = 0
    collect: int = 0
    delete: int = 0


# A wrapper's last word. Of preflight with what it saw of the node.
_FACTS = {"driver": "550.54.14", "product": "NVIDIA A100-SXM4-40GB", "count": 8, "gpuFindings": 0}
_DONE = json.dumps({"reason": "Completed", "message": "done"})
_SEEN = json.dumps({"reason": "Completed", "message": "the node is as the run needs it", "facts": _FACTS})
_FAILED = json.dumps({"reason": "StageFailed", "message": "make ended with 2", "exitCode": 2, "tail": "no rule"})


def _quoted(text: str) -> str:
    """Return a Go string of a text: JSON's form is Go's for what is printable ASCII."""
    return json.dumps(text)


_HEAD = f"""
{{{{ $now := Now }}}}{{{{ $root := . }}}}
{{{{ $uid := index (or .metadata.labels dict) "mlperf.dev/run-uid" | default "" }}}}
{{{{ $wanted := or .spec.nodeSelector dict }}}}
{{{{ $figure := printf "1%s.5" (regexReplaceAll "[^0-9]" $uid "" | trunc {FIGURE_DIGITS}) }}}}
{{{{ $lines := replace {_quoted(UID)} $uid {_quoted(LINES)} | replace {_quoted(FIGURE)} $figure }}}}
{{{{ $report := dict "kind" "report" "uid" $uid "count" {COUNT} "sha256" (sha256sum $lines)
  "verdicts" ({_quoted(json.dumps(VERDICTS))} | fromJson) | toJson }}}}
{{{{ $waiting := dict "waiting" (dict "reason" "PodInitializing") }}}}
{{{{ $running := dict "running" (dict "startedAt" $now) }}}}
{{{{ $olds := dict }}}}
{{{{ range .status.initContainerStatuses }}}}{{{{ $_ := set $olds .name .state }}}}{{{{ end }}}}
{{{{ range .status.containerStatuses }}}}{{{{ $_ := set $olds .name .state }}}}{{{{ end }}}}
"""

# Sets $state to the end of container $c, which was in state $old.
_END = f"""
{{{{ $code := 0 }}}}{{{{ $word := {_quoted(_DONE)} }}}}
{{{{ if eq $c.name "preflight" }}}}{{{{ $word = {_quoted(_SEEN)} }}}}{{{{ end }}}}
{{{{ if eq $c.name "collect" }}}}{{{{ $word = $report }}}}{{{{ end }}}}
{{{{ if hasKey $wanted (printf "{FAILS_LABEL}%s" $c.name) }}}}
{{{{ $code = 65 }}}}{{{{ $word = {_quoted(_FAILED)} }}}}{{{{ $failed = true }}}}{{{{ end }}}}
{{{{ $began := $now }}}}{{{{ with $old.running }}}}{{{{ $began = .startedAt }}}}{{{{ end }}}}
{{{{ $state = dict "terminated" (dict "exitCode" $code "reason" (ternary "Completed" "Error" (eq $code 0))
  "message" $word "startedAt" $began "finishedAt" $now) }}}}
"""

_ITEM = """
- {{ dict "name" $c.name "image" $c.image "imageID" $c.image "restartCount" 0 "ready" (hasKey $state "running")
  "started" (hasKey $state "running") "state" $state | toJson }}
"""

_CONDITIONS = """
conditions:
{{ range $type, $is := $conditions }}
- {{ dict "type" $type "status" $is "lastTransitionTime" $now | toJson }}
{{ end }}
"""

_PREPARE = f"""{_HEAD}
{{{{ $busy := false }}}}{{{{ $failed := false }}}}
{{{{ if .spec.initContainers }}}}
initContainerStatuses:
{{{{ end }}}}
{{{{ range $c := .spec.initContainers }}}}
{{{{ $old := get $olds $c.name | default $waiting }}}}{{{{ $state := $old }}}}
{{{{ $sidecar := eq (or $c.restartPolicy "") "Always" }}}}
{{{{ if and (hasKey $old "running") (not $sidecar) }}}}{_END}
{{{{ else if and (hasKey $old "waiting") (not $busy) (not $failed) }}}}
{{{{ $state = $running }}}}{{{{ if not $sidecar }}}}{{{{ $busy = true }}}}{{{{ end }}}}
{{{{ end }}}}
{_ITEM}
{{{{ end }}}}
containerStatuses:
{{{{ range $c := .spec.containers }}}}
{{{{ $state := $running }}}}{{{{ if or $busy $failed }}}}{{{{ $state = $waiting }}}}{{{{ end }}}}
{_ITEM}
{{{{ end }}}}
{{{{ $up := ternary "False" "True" (or $busy $failed) }}}}
{{{{ $conditions := dict "Initialized" $up "Ready" $up "ContainersReady" $up }}}}
{_CONDITIONS}
hostIP: "127.0.0.1"
startTime: {{{{ .status.startTime | default $now | toJson }}}}
phase: {{{{ if $failed }}}}Failed{{{{ else if $busy }}}}Pending{{{{ else }}}}Running{{{{ end }}}}
"""

_RUN_ENDS = f"""{_HEAD}
{{{{ $failed := false }}}}
containerStatuses:
{{{{ range $c := .spec.containers }}}}
{{{{ $old := get $olds $c.name | default $waiting }}}}{{{{ $state := $old }}}}
{_END}{_ITEM}
{{{{ end }}}}
{{{{ $conditions := dict "Ready" "False" "ContainersReady" "False" }}}}
{_CONDITIONS}
"""

_POD_ENDS = f"""{_HEAD}
{{{{ $failed := false }}}}
{{{{ range .status.containerStatuses }}}}
{{{{ if ne (toString .state.terminated.exitCode) "0" }}}}{{{{ $failed = true }}}}{{{{ end }}}}
{{{{ end }}}}
{{{{ $phase := ternary "Failed" "Succeeded" $failed }}}}
{{{{ if .spec.initContainers }}}}
initContainerStatuses:
{{{{ end }}}}
{{{{ range $c := .spec.initContainers }}}}
{{{{ $old := get $olds $c.name | default $waiting }}}}{{{{ $state := $old }}}}
{{{{ if hasKey $old "running" }}}}{_END}{{{{ end }}}}
{_ITEM}
{{{{ end }}}}
phase: {{{{ $phase }}}}
"""

# As a kubelet does before it lets a deleted pod go: nothing of it runs any more.
_KILLED = f"""{_HEAD}
{{{{ $killed := dict "terminated" (dict "exitCode" 137 "reason" "Error" "startedAt" $now "finishedAt" $now) }}}}
{{{{ if .spec.initContainers }}}}
initContainerStatuses:
{{{{ end }}}}
{{{{ range $c := .spec.initContainers }}}}
{{{{ $state := get $olds $c.name | default $waiting }}}}
{{{{ if hasKey $state "running" }}}}{{{{ $state = $killed }}}}{{{{ end }}}}
{_ITEM}
{{{{ end }}}}
containerStatuses:
{{{{ range $c := .spec.containers }}}}
{{{{ $state := get $olds $c.name | default $waiting }}}}
{{{{ if hasKey $state "running" }}}}{{{{ $state = $killed }}}}{{{{ end }}}}
{_ITEM}
{{{{ end }}}}
{{{{ $conditions := dict "Ready" "False" "ContainersReady" "False" }}}}
{_CONDITIONS}
phase: Failed
"""

_NODE_IS_READY = """
{{ $now := Now }}
conditions:
{{ range NodeConditions }}
- {{ dict "type" .type "status" .status "reason" .reason "message" .message "lastHeartbeatTime" $now
  "lastTransitionTime" $now | toJson }}
{{ end }}
"""

_HERE = {"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"}
_GOING = {"key": ".metadata.deletionTimestamp", "operator": "Exists"}
_OF_A_JOB = {"key": '.metadata.labels["batch.kubernetes.io/job-name"]', "operator": "Exists"}
_RUNS = ".status.containerStatuses.[].state.running"


def _in(key: str, *values: str) -> dict[str, Any]:
    return {"key": key, "operator": "In", "values": list(values)}


def _stage(name: str, kind: str, where: list[dict[str, Any]], delay: int, change: dict[str, Any]) -> dict[str, Any]:
    spec = {
        "resourceRef": {"apiGroup": "v1", "kind": kind},
        "selector": {"matchExpressions": where},
        "delay": {"durationMilliseconds": delay},
        "next": change,
    }
    return {"apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "Stage", "metadata": {"name": name}, "spec": spec}


def stages(delays: Delays) -> list[dict[str, Any]]:
    """Return the stages of nodes and pods."""
    pending, running = _in(".status.phase", "Pending"), _in(".status.phase", "Running")
    ready = '.status.conditions.[] | select( .type == "Ready" ) | .status'
    without_finalizers = {"key": ".metadata.finalizers", "operator": "DoesNotExist"}
    up, down = {"key": _RUNS, "operator": "Exists"}, {"key": _RUNS, "operator": "DoesNotExist"}
    return [
        _stage(
            "node-is-ready",
            "Node",
            [{"key": ready, "operator": "NotIn", "values": ["True"]}],
            0,
            {"statusTemplate": _NODE_IS_READY},
        ),
        _stage("prepare", "Pod", [_HERE, pending], delays.prepare, {"statusTemplate": _PREPARE}),
        _stage("run-ends", "Pod", [_HERE, running, _OF_A_JOB, up], delays.run, {"statusTemplate": _RUN_ENDS}),
        _stage("pod-ends", "Pod", [_HERE, running, _OF_A_JOB, down], delays.collect, {"statusTemplate": _POD_ENDS}),
        _stage(
            "killed",
            "Pod",
            [_GOING, _in(".status.phase", "Pending", "Running")],
            delays.delete,
            {"statusTemplate": _KILLED},
        ),
        _stage(
            "gone",
            "Pod",
            [_GOING, _in(".status.phase", "Succeeded", "Failed"), without_finalizers],
            0,
            {"delete": True},
        ),
    ]
