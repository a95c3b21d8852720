{{/* Copyright The Millrace Authors; SPDX-License-Identifier: Apache-2.0 */}}

{{- define "millrace.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Short enough for what is added to it: "-headless", "-client", a ReplicaSet's and a pod's own. */}}
{{- define "millrace.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 46 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 46 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 46 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What pods of servers are found by. It never changes while a release lives. */}}
{{- define "millrace.selectorLabels" -}}
app.kubernetes.io/name: {{ include "millrace.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end -}}

{{/* Labels of every object. Call with (dict "root" $ "component" "…"). */}}
{{- define "millrace.labels" -}}
{{- with .root -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "millrace.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
app.kubernetes.io/component: {{ .component | default "server" }}
{{- end -}}

{{/* Labels of pods: without the chart's version, which alone is no reason to replace them. */}}
{{- define "millrace.podLabels" -}}
{{- $labels := include "millrace.selectorLabels" . | fromYaml -}}
{{- $_ := set $labels "app.kubernetes.io/version" .Chart.AppVersion -}}
{{- merge (dict) $labels .Values.podLabels .Values.commonLabels | toYaml -}}
{{- end -}}

{{/* The beginning of every object's metadata. Call with (dict "root" $), and "name", "component", "labels" and
     "annotations" where they differ. */}}
{{- define "millrace.metadata" -}}
{{- $labels := merge (dict) (.labels | default dict) (include "millrace.labels" . | fromYaml) .root.Values.commonLabels -}}
{{- $annotations := merge (dict) (.annotations | default dict) .root.Values.commonAnnotations -}}
name: {{ .name | default (include "millrace.fullname" .root) }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- toYaml $labels | nindent 2 }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "millrace.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "millrace.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "millrace.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- $suffix := ternary .Values.gpu.tagSuffix "" .Values.gpu.enabled -}}
{{- printf "%s:%s" $image.repository (default (printf "%s%s" .Chart.AppVersion $suffix) $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The label that lets a pod call the server, where the network policy names nobody else. */}}
{{- define "millrace.clientLabel" -}}
{{- include "millrace.fullname" . -}}-client
{{- end -}}
