{{/* Copyright The Millrace Authors; SPDX-License-Identifier: Apache-2.0

     Values that contradict each other, or what the cluster can, end the rendering with a message. What one value alone
     may be is in values.schema.json. */}}

{{- define "millrace.check" -}}
{{- $models := .Values.models -}}
{{- $sources := 0 -}}
{{- range list $models.existingClaim $models.image.reference $models.volume }}{{ if . }}{{ $sources = add1 $sources }}{{ end }}{{ end -}}
{{- if ne (int $sources) 1 -}}
{{- fail (printf "millrace: models come from one place: give one of models.existingClaim, models.image.reference and models.volume; there are %d" (int $sources)) -}}
{{- end -}}
{{- if and $models.image.reference (semverCompare "<1.31.0-0" .Capabilities.KubeVersion.Version) -}}
{{- fail (printf "millrace: models.image.reference takes Kubernetes 1.31, this is %s" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- if and $models.image.reference $models.subPath (semverCompare "<1.33.0-0" .Capabilities.KubeVersion.Version) -}}
{{- fail (printf "millrace: models.subPath of an image takes Kubernetes 1.33, this is %s" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- if and $models.load (ne $models.control "explicit") -}}
{{- fail (printf "millrace: models.load is for models.control explicit, which is %s" $models.control) -}}
{{- end -}}

{{- if and .Values.tls.enabled (not .Values.tls.existingSecret) -}}
{{- fail "millrace: tls.enabled takes tls.existingSecret, a Secret with tls.crt and tls.key" -}}
{{- end -}}
{{- if and .Values.tls.clientCaSecret (not .Values.tls.enabled) -}}
{{- fail "millrace: tls.clientCaSecret asks for clients' certificates, which takes tls.enabled" -}}
{{- end -}}
{{- if and .Values.tls.allowedSans (not .Values.tls.clientCaSecret) -}}
{{- fail "millrace: tls.allowedSans are names in clients' certificates, which takes tls.clientCaSecret" -}}
{{- end -}}

{{- if and (include "millrace.isSidecar" .) .Values.tls.enabled -}}
{{- fail "millrace: tls.enabled is for servers on a network; a sidecar's socket never leaves the pod" -}}
{{- end -}}

{{- $limit := include "millrace.memoryLimit" . -}}
{{- if $limit -}}
{{- $queue := include "millrace.maxQueueBytes" . | int64 -}}
{{- $buffered := add $queue (int64 .Values.server.grpcMemoryBytes) -}}
{{- if ge (mul $buffered 2) ($limit | int64) -}}
{{- fail (printf "millrace: server.maxQueueBytes and server.grpcMemoryBytes may take %d bytes together, which leaves models less than half of resources.limits.memory, %s bytes" $buffered $limit) -}}
{{- end -}}
{{- end -}}
{{- $ready := add (int .Values.server.loadTimeoutSeconds) (int .Values.server.tuneAtStartSeconds) -}}
{{- if lt (int .Values.probes.startup.budgetSeconds) (int $ready) -}}
{{- fail (printf "millrace: probes.startup.budgetSeconds is %d, but loading and tuning may take %d seconds (server.loadTimeoutSeconds, server.tuneAtStartSeconds)" (int .Values.probes.startup.budgetSeconds) (int $ready)) -}}
{{- end -}}
{{- $ports := list (int .Values.ports.grpc) (int .Values.ports.http) (int .Values.ports.health) -}}
{{- if ne (len (uniq $ports)) 3 -}}
{{- fail (printf "millrace: the three of ports must differ; they are %v" $ports) -}}
{{- end -}}

{{- if and (eq .Values.mode "sidecar") (not .Values.sidecar.containers) -}}
{{- fail "millrace: mode sidecar takes sidecar.containers, the containers beside which the server runs" -}}
{{- end -}}
{{- if and (eq .Values.mode "sidecar") .Values.monitoring.serviceMonitor.enabled -}}
{{- fail "millrace: a sidecar has no service to monitor; use monitoring.podMonitor" -}}
{{- end -}}

{{- if and .Values.autoscaling.hpa.enabled .Values.autoscaling.keda.enabled -}}
{{- fail "millrace: autoscaling.hpa and autoscaling.keda would scale the same pods; KEDA makes an HPA of its own" -}}
{{- end -}}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) -}}
{{- fail (printf "millrace: autoscaling.minReplicas is %d, more than autoscaling.maxReplicas, %d" (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- end -}}
{{- if and .Values.autoscaling.keda.enabled (not .Values.autoscaling.keda.serverAddress) -}}
{{- fail "millrace: autoscaling.keda takes autoscaling.keda.serverAddress, where Prometheus is" -}}
{{- end -}}
{{- if and .Values.monitoring.podMonitor.enabled .Values.monitoring.serviceMonitor.enabled -}}
{{- fail "millrace: monitoring.podMonitor and monitoring.serviceMonitor would have everything measured twice" -}}
{{- end -}}
{{- $monitoring := .Values.monitoring -}}
{{- range $name, $wanted := dict "monitoring.podMonitor" $monitoring.podMonitor.enabled "monitoring.serviceMonitor" $monitoring.serviceMonitor.enabled "monitoring.prometheusRule" $monitoring.prometheusRule.enabled -}}
{{- if and $wanted (not ($.Capabilities.APIVersions.Has "monitoring.coreos.com/v1")) -}}
{{- fail (printf "millrace: %s takes the Prometheus operator, but the cluster doesn't know monitoring.coreos.com/v1 (where there is no cluster: helm template --api-versions monitoring.coreos.com/v1)" $name) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.autoscaling.keda.enabled (not (.Capabilities.APIVersions.Has "keda.sh/v1alpha1")) -}}
{{- fail "millrace: autoscaling.keda takes KEDA, but the cluster doesn't know keda.sh/v1alpha1 (where there is no cluster: helm template --api-versions keda.sh/v1alpha1)" -}}
{{- end -}}
{{- end -}}
