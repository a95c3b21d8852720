{{/* Copyright The Millrace Authors; SPDX-License-Identifier: Apache-2.0

     For other charts that have this one as a dependency, with `mode: library`:

       initContainers:
         - {{- include "millrace.sidecar" .Subcharts.millrace | nindent 4 }}
       containers:
         - name: …
           env:
             {{- include "millrace.socketEnv" .Subcharts.millrace | nindent 6 }}
           volumeMounts:
             {{- include "millrace.socketMount" .Subcharts.millrace | nindent 6 }}
       volumes:
         {{- include "millrace.volumes" .Subcharts.millrace | nindent 4 }}
*/}}

{{- define "millrace.sidecar" -}}
{{- if not (include "millrace.isSidecar" .) -}}
{{- fail "millrace: the sidecar's templates take mode library in the values of the millrace chart" -}}
{{- end -}}
{{- include "millrace.container" . -}}
{{- end -}}

{{- define "millrace.socketMount" -}}
- name: millrace-socket
  mountPath: {{ .Values.sidecar.socketDir }}
{{- end -}}

{{- define "millrace.socketEnv" -}}
- name: MILLRACE_URL
  value: {{ include "millrace.socketUrl" . | quote }}
{{- end -}}
