{{/* Copyright The Millrace Authors; SPDX-License-Identifier: Apache-2.0

     What follows from the values. "true" or nothing stands for yes or no. */}}

{{/* It is reached by a Unix socket, from the same pod. */}}
{{- define "millrace.isSidecar" -}}
{{- if ne .Values.mode "deployment" -}}true{{- end -}}
{{- end -}}

{{- define "millrace.isRestricted" -}}
{{- if or .Values.tls.enabled .Values.tokens.existingSecret -}}true{{- end -}}
{{- end -}}

{{/* Kubernetes' probes know neither TLS nor tokens nor Unix sockets: then health has a port of its own. */}}
{{- define "millrace.hasHealthPort" -}}
{{- if or (include "millrace.isSidecar" .) (include "millrace.isRestricted" .) -}}true{{- end -}}
{{- end -}}

{{- define "millrace.probePort" -}}
{{- if include "millrace.hasHealthPort" . -}}{{ int .Values.ports.health }}{{- else -}}{{ int .Values.ports.grpc }}{{- end -}}
{{- end -}}

{{- define "millrace.socketUrl" -}}
unix:{{ .Values.sidecar.socketDir }}/millrace.sock
{{- end -}}

{{/* preStop can sleep without a program from 1.30 on. */}}
{{- define "millrace.hasSleep" -}}
{{- if semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version -}}true{{- end -}}
{{- end -}}

{{/* A sidecar's clients have ended before it is told to: nobody has to notice anything. */}}
{{- define "millrace.drainDelaySeconds" -}}
{{- if include "millrace.isSidecar" . -}}
0
{{- else if include "millrace.hasSleep" . -}}
{{ int .Values.drain.delaySeconds }}
{{- else -}}
{{ add (int .Values.drain.preStopSeconds) (int .Values.drain.delaySeconds) }}
{{- end -}}
{{- end -}}

{{- define "millrace.terminationGracePeriodSeconds" -}}
{{- $drain := .Values.drain -}}
{{- $before := ternary (int .Values.sidecar.containersStopSeconds) (add (int $drain.preStopSeconds) (int $drain.delaySeconds)) (eq (include "millrace.isSidecar" .) "true") -}}
{{ add $before (int $drain.timeoutSeconds) (int $drain.slackSeconds) }}
{{- end -}}

{{/* A quantity of Kubernetes as a number of bytes. */}}
{{- define "millrace.bytes" -}}
{{- if kindIs "string" . -}}
{{- $number := regexFind "^[0-9]+(\\.[0-9]+)?" . -}}
{{- $unit := trimPrefix $number . -}}
{{- $units := dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- if or (not $number) (not (hasKey $units $unit)) -}}
{{- fail (printf "millrace: %q is no amount of memory that this chart can read; write it as 4Gi or 512Mi" .) -}}
{{- end -}}
{{- mulf (float64 $number) (get $units $unit) | int64 -}}
{{- else -}}
{{- int64 . -}}
{{- end -}}
{{- end -}}

{{/* The container's memory in bytes; nothing where it has no limit. */}}
{{- define "millrace.memoryLimit" -}}
{{- with dig "limits" "memory" "" .Values.resources -}}{{ include "millrace.bytes" . }}{{- end -}}
{{- end -}}

{{/* For --max-queue-bytes; nothing leaves the server's own default. */}}
{{- define "millrace.maxQueueBytes" -}}
{{- if .Values.server.maxQueueBytes -}}
{{ int64 .Values.server.maxQueueBytes }}
{{- else if include "millrace.memoryLimit" . -}}
{{ div (include "millrace.memoryLimit" . | int64) 4 }}
{{- end -}}
{{- end -}}

{{- define "millrace.resources" -}}
{{- $resources := deepCopy .Values.resources -}}
{{- if .Values.gpu.enabled -}}
{{- $gpus := dict .Values.gpu.resourceName (int .Values.gpu.count) -}}
{{- $_ := set $resources "requests" (merge (dict) $gpus ($resources.requests | default dict)) -}}
{{- $_ := set $resources "limits" (merge (dict) $gpus ($resources.limits | default dict)) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}
