{{/* Copyright The Millrace Authors; SPDX-License-Identifier: Apache-2.0

     The server's container, and the volumes that it takes. */}}

{{- define "millrace.args" -}}
{{- $server := .Values.server -}}
- --model-repository={{ .Values.models.mountPath }}
{{- if ne .Values.models.control "none" }}
- --model-control={{ .Values.models.control }}
{{- end }}
{{- range .Values.models.load }}
- {{ printf "--load-model=%s" . | quote }}
{{- end }}
{{- range .Values.models.required }}
- {{ printf "--required-model=%s" . | quote }}
{{- end }}
{{- if include "millrace.isSidecar" . }}
- --grpc-listen={{ include "millrace.socketUrl" . }}
- --unix-mode=0660
{{- else }}
- --grpc-listen={{ $server.listenHost }}:{{ int .Values.ports.grpc }}
{{- end }}
- --http-listen={{ $server.listenHost }}:{{ int .Values.ports.http }}
{{- if include "millrace.hasHealthPort" . }}
- --health-listen={{ $server.listenHost }}:{{ int .Values.ports.health }}
{{- end }}
{{- if .Values.admin.enabled }}
- --admin-listen=unix:/run/millrace-admin/admin.sock
{{- end }}
{{- if .Values.tls.enabled }}
- --tls-cert=/etc/millrace/tls/tls.crt
- --tls-key=/etc/millrace/tls/tls.key
{{- if .Values.tls.clientCaSecret }}
- --tls-client-ca=/etc/millrace/client-ca/ca.crt
{{- end }}
{{- range .Values.tls.allowedSans }}
- {{ printf "--tls-allowed-san=%s" . | quote }}
{{- end }}
{{- end }}
{{- if .Values.tokens.existingSecret }}
- {{ printf "--token-file=/etc/millrace/tokens/%s" .Values.tokens.key | quote }}
{{- end }}
- --drain-delay={{ include "millrace.drainDelaySeconds" . }}s
- --drain-timeout={{ int .Values.drain.timeoutSeconds }}s
- --load-timeout={{ int $server.loadTimeoutSeconds }}s
- --unhealthy-after={{ $server.unhealthyAfterSeconds }}s
{{- with include "millrace.maxQueueBytes" . }}
- --max-queue-bytes={{ . }}
{{- end }}
{{- with $server.grpcMemoryBytes }}
- --grpc-memory-bytes={{ int64 . }}
{{- end }}
{{- with $server.maxMessageBytes }}
- --max-message-bytes={{ int64 . }}
{{- end }}
{{- with $server.maxStreams }}
- --max-streams={{ int . }}
{{- end }}
{{- with $server.streamWindow }}
- --stream-window={{ int . }}
{{- end }}
{{- if ne $server.sandbox "on" }}
- --sandbox={{ $server.sandbox }}
{{- end }}
{{- if $server.pin }}
- --pin
{{- end }}
{{- with $server.tuneAtStartSeconds }}
- --tune-at-start={{ int . }}s
{{- end }}
- --log-level={{ $server.logLevel }}
- --log-format={{ $server.logFormat }}
{{- range $server.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end -}}

{{- define "millrace.volumeMounts" -}}
- name: millrace-models
  mountPath: {{ .Values.models.mountPath }}
  {{- with .Values.models.subPath }}
  subPath: {{ . }}
  {{- end }}
  readOnly: true
- name: millrace-tmp
  mountPath: /tmp
{{- if include "millrace.isSidecar" . }}
{{ include "millrace.socketMount" . }}
{{- end }}
{{- if .Values.admin.enabled }}
- name: millrace-admin
  mountPath: /run/millrace-admin
{{- end }}
{{- if .Values.tls.enabled }}
- name: millrace-tls
  mountPath: /etc/millrace/tls
  readOnly: true
{{- if .Values.tls.clientCaSecret }}
- name: millrace-client-ca
  mountPath: /etc/millrace/client-ca
  readOnly: true
{{- end }}
{{- end }}
{{- if .Values.tokens.existingSecret }}
- name: millrace-tokens
  mountPath: /etc/millrace/tokens
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* No /dev/shm: batches are in anonymous memory, which the container's limit counts. Secrets are mounted whole, not by
     subPath: else what is renewed would not arrive. */}}
{{- define "millrace.volumes" -}}
- name: millrace-models
  {{- with .Values.models }}
  {{- if .existingClaim }}
  persistentVolumeClaim:
    claimName: {{ .existingClaim }}
    readOnly: true
  {{- else if .image.reference }}
  image:
    reference: {{ .image.reference | quote }}
    pullPolicy: {{ .image.pullPolicy }}
  {{- else }}
  {{- .volume | default (dict "emptyDir" dict) | toYaml | nindent 2 }}
  {{- end }}
  {{- end }}
- name: millrace-tmp
  emptyDir:
    sizeLimit: {{ .Values.tmpSizeLimit }}
{{- if include "millrace.isSidecar" . }}
- name: millrace-socket
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
{{- end }}
{{- if .Values.admin.enabled }}
- name: millrace-admin
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
{{- end }}
{{- if .Values.tls.enabled }}
- name: millrace-tls
  secret:
    secretName: {{ .Values.tls.existingSecret }}
    defaultMode: 0440
    items:
      - {key: tls.crt, path: tls.crt}
      - {key: tls.key, path: tls.key}
{{- if .Values.tls.clientCaSecret }}
- name: millrace-client-ca
  secret:
    secretName: {{ .Values.tls.clientCaSecret }}
    defaultMode: 0440
    items:
      - {key: ca.crt, path: ca.crt}
{{- end }}
{{- end }}
{{- if .Values.tokens.existingSecret }}
- name: millrace-tokens
  secret:
    secretName: {{ .Values.tokens.existingSecret }}
    defaultMode: 0440
    items:
      - {{ dict "key" .Values.tokens.key "path" .Values.tokens.key | toJson }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Call with (dict "root" $ "service" "…" "times" …). */}}
{{- define "millrace.probe" -}}
grpc:
  port: {{ include "millrace.probePort" .root }}
  service: {{ .service }}
periodSeconds: {{ int .times.periodSeconds }}
timeoutSeconds: {{ int .times.timeoutSeconds }}
{{- end -}}

{{- define "millrace.container" -}}
{{- include "millrace.check" . -}}
{{- $startup := .Values.probes.startup -}}
name: millrace
image: {{ include "millrace.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- if include "millrace.isSidecar" . }}
restartPolicy: Always
{{- end }}
args:
  {{- include "millrace.args" . | nindent 2 }}
{{- with .Values.extraEnv }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  {{- if not (include "millrace.isSidecar" .) }}
  - name: grpc
    containerPort: {{ int .Values.ports.grpc }}
    protocol: TCP
  {{- end }}
  - name: http-metrics
    containerPort: {{ int .Values.ports.http }}
    protocol: TCP
  {{- if include "millrace.hasHealthPort" . }}
  - name: grpc-health
    containerPort: {{ int .Values.ports.health }}
    protocol: TCP
  {{- end }}
startupProbe:
  {{- include "millrace.probe" (dict "root" . "service" "readiness" "times" $startup) | nindent 2 }}
  failureThreshold: {{ ceil (divf $startup.budgetSeconds $startup.periodSeconds) | int }}
livenessProbe:
  {{- include "millrace.probe" (dict "root" . "service" "liveness" "times" .Values.probes.liveness) | nindent 2 }}
  failureThreshold: {{ int .Values.probes.liveness.failureThreshold }}
readinessProbe:
  {{- include "millrace.probe" (dict "root" . "service" "readiness" "times" .Values.probes.readiness) | nindent 2 }}
  failureThreshold: {{ int .Values.probes.readiness.failureThreshold }}
{{- if and (not (include "millrace.isSidecar" .)) (include "millrace.hasSleep" .) (int .Values.drain.preStopSeconds) }}
lifecycle:
  preStop:
    sleep:
      seconds: {{ int .Values.drain.preStopSeconds }}
{{- end }}
resources:
  {{- include "millrace.resources" . | nindent 2 }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
terminationMessagePolicy: FallbackToLogsOnError
volumeMounts:
  {{- include "millrace.volumeMounts" . | nindent 2 }}
{{- end -}}
