{{/* What several admission policies say: accounts, lists as CEL literals (JSON is one), and a few expressions. */}}

{{- define "mlperf-operator.account" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "mlperf-operator.name" . }}
{{- end }}

{{/* What a policy must know of the built-in suites; tests/integration/test_admission_runs.py compares. */}}
{{- define "mlperf-operator.builtInSuites" -}}
- name: nvidia-v4.1
  image: nvcr.io/nvidia/mlperf/mlperf-inference:mlpinf-v4.1-cuda12.4-pytorch24.04-ubuntu22.04-x86_64-release
  usesGpu: true
  devicePaths: [/dev/fuse]
- name: reference-cpu
  image: mlperf-reference-harness:latest
  usesGpu: false
  devicePaths: []
{{- end }}

{{- define "mlperf-operator.allSuites" -}}
{{ toJson (concat (include "mlperf-operator.builtInSuites" . | fromYamlArray) .Values.suites) }}
{{- end }}

{{/* Image of each suite, as runs get it. */}}
{{- define "mlperf-operator.imagesBySuite" -}}
{{- $images := dict -}}
{{- range include "mlperf-operator.allSuites" . | fromJsonArray }}
{{- $_ := set $images .name (get . "image" | toString) }}
{{- end -}}
{{ toJson (merge (deepCopy .Values.suiteImages) $images) }}
{{- end }}

{{- define "mlperf-operator.suitesWithGpus" -}}
{{- $names := list -}}
{{- range include "mlperf-operator.allSuites" . | fromJsonArray }}
{{- if get . "usesGpu" }}{{ $names = append $names .name }}{{ end }}
{{- end -}}
{{ toJson $names }}
{{- end }}

{{- define "mlperf-operator.devicesOfSuites" -}}
{{- $paths := list -}}
{{- range include "mlperf-operator.allSuites" . | fromJsonArray }}
{{- $paths = concat $paths (get . "devicePaths" | default list) }}
{{- end -}}
{{ toJson (uniq $paths) }}
{{- end }}

{{/* A folder ends with a slash, so that one lies under another when it begins with it. */}}
{{- define "mlperf-operator.folders" -}}
{{- $folders := list -}}
{{- range . }}{{ $folders = append $folders (printf "%s/" (clean . | trimSuffix "/")) }}{{ end -}}
{{ toJson $folders }}
{{- end }}

{{/* Folders without those that lie under another: what a pod mounts (host_paths.outermost). */}}
{{- define "mlperf-operator.outermost" -}}
{{- $folders := include "mlperf-operator.folders" . | fromJsonArray -}}
{{- $outer := list -}}
{{- range $folder := $folders }}
{{- $within := false -}}
{{- range $other := $folders }}
{{- if and (ne $other $folder) (hasPrefix $other $folder) }}{{ $within = true }}{{ end }}
{{- end -}}
{{- if not $within }}{{ $outer = append $outer $folder }}{{ end -}}
{{- end -}}
{{ toJson (uniq $outer) }}
{{- end }}

{{/* By namespace one field of harnessParity; volumes that are paths become folders. */}}
{{- define "mlperf-operator.parityVolumes" -}}
{{- $all := dict -}}
{{- range $namespace, $grant := .Values.harnessParity }}
{{- $volumes := list -}}
{{- range get $grant "volumes" | default list }}
{{- $volumes = append $volumes (ternary (printf "%s/" (clean . | trimSuffix "/")) . (hasPrefix "/" .)) -}}
{{- end }}
{{- $_ := set $all $namespace $volumes -}}
{{- end -}}
{{ toJson $all }}
{{- end }}

{{- define "mlperf-operator.parityImages" -}}
{{- $all := dict -}}
{{- range $namespace, $grant := .Values.harnessParity }}
{{- $_ := set $all $namespace (get $grant "images" | default list) }}
{{- end -}}
{{ toJson $all }}
{{- end }}

{{- define "mlperf-operator.parityNodes" -}}
{{- $all := dict -}}
{{- range $namespace, $grant := .Values.harnessParity }}
{{- $_ := set $all $namespace (get $grant "nodeSelector" | default dict) }}
{{- end -}}
{{ toJson $all }}
{{- end }}

{{/* A list for a sentence, as a CEL string. */}}
{{- define "mlperf-operator.choices" -}}
{{ toJson (. | sortAlpha | join ", " | default "none") }}
{{- end }}

{{/* Whether image i begins with prefix p: registry.example allows neither registry.example.evil nor
     registry.example:5000/evil (limits.begins_with). */}}
{{- define "mlperf-operator.celBeginsWith" -}}
(i.startsWith(p) && (i == p || p.endsWith('/') || p.endsWith(':') || p.endsWith('@') ||
i.substring(p.size()).startsWith('/') || i.substring(p.size()).startsWith('@') ||
(i.substring(p.size()).startsWith(':') && !i.substring(p.size()).contains('/'))))
{{- end }}

{{/* A path as a folder, without empty parts and dots; its argument is a CEL expression. */}}
{{- define "mlperf-operator.celFolder" -}}
('/' + {{ . }}.split('/').filter(s, s != '' && s != '.').map(s, s + '/').join(''))
{{- end }}

{{/* Whether variables.pod with variables.containers keeps to PodSecurity baseline, apart from host paths. */}}
{{- define "mlperf-operator.celPlain" -}}
!variables.pod.?hostPID.orValue(false) && !variables.pod.?hostIPC.orValue(false) &&
!variables.pod.?hostNetwork.orValue(false) && !variables.pod.?securityContext.?sysctls.hasValue() &&
([variables.pod.?securityContext] + variables.containers.map(c, c.?securityContext)).all(s,
!s.?privileged.orValue(false) && !s.?seLinuxOptions.hasValue() && !s.?windowsOptions.hasValue() &&
s.?capabilities.?add.orValue([]).all(a, a in ['AUDIT_WRITE', 'CHOWN', 'DAC_OVERRIDE', 'FOWNER', 'FSETID', 'KILL',
'MKNOD', 'NET_BIND_SERVICE', 'SETFCAP', 'SETGID', 'SETPCAP', 'SETUID', 'SYS_CHROOT']) &&
s.?procMount.orValue('Default') == 'Default' && s.?seccompProfile.?type.orValue('') != 'Unconfined' &&
s.?appArmorProfile.?type.orValue('') != 'Unconfined') &&
!variables.new.metadata.?annotations.orValue({}).exists(k, k.startsWith('container.apparmor.')) &&
variables.containers.all(c, c.?ports.orValue([]).all(p, p.?hostPort.orValue(0) == 0))
{{- end }}

{{/* Not an account of the operator; not a person whom the administrator trusts to mend things by hand. */}}
{{- define "mlperf-operator.notTrusted" -}}
- name: not-trusted
  expression: >-
    !has(request.userInfo.groups) ||
    !request.userInfo.groups.exists(g, g in {{ toJson .Values.admissionPolicies.trustedGroups }})
{{- end }}

{{- define "mlperf-operator.notTheOperator" -}}
- name: not-the-operator
  expression: request.userInfo.username != {{ include "mlperf-operator.account" . | toJson }}
{{- end }}

{{/* The policy `children` and its binding, whose uid the pods of runs carry where runs alone have privileges. */}}
{{- define "mlperf-operator.childrenPolicy" -}}
{{ include "mlperf-operator.name" . }}-children
{{- end }}

{{/* "mlperf-operator.policyBinding" (list . NAME) */}}
{{- define "mlperf-operator.policyBinding" -}}
{{- $root := index . 0 -}}
{{- $name := printf "%s-%s" (include "mlperf-operator.name" $root) (index . 1) -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ $name }}
  labels: {{- include "mlperf-operator.labels" $root | nindent 4 }}
spec:
  policyName: {{ $name }}
  validationActions: [Deny]
{{- end }}

{{- define "mlperf-operator.parityFoldersByNamespace" -}}
{{- $all := list -}}
{{- range $namespace, $volumes := include "mlperf-operator.parityVolumes" . | fromJson }}
{{- range $volumes }}
{{- if hasPrefix "/" . }}{{ $all = append $all (dict "namespace" $namespace "folder" .) }}{{ end }}
{{- end }}
{{- end -}}
{{ toJson $all }}
{{- end }}
