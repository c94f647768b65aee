{{- define "denim.image" -}}
{{ .Values.denim.image.repository }}:{{ .Values.denim.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* net-conf. Numbers go by int: helm reads them as floating point. */ -}}
{{- define "denim.netConf" -}}
{{- $denim := .Values.denim -}}
{{- $conf := dict -}}
{{- if .Values.podCidr }}{{ $_ := set $conf "Network" .Values.podCidr }}
{{- else }}{{ $_ := set $conf "EnableIPv4" false }}{{ end -}}
{{- with .Values.podCidrv6 }}{{ $_ := set $conf "IPv6Network" . }}{{ $_ := set $conf "EnableIPv6" true }}{{ end -}}
{{- if not (kindIs "invalid" $denim.enableNFTables) }}{{ $_ := set $conf "EnableNFTables" $denim.enableNFTables }}{{ end -}}
{{- $backend := dict "Type" $denim.backend -}}
{{- $port := ternary "ListenPort" "Port" (eq $denim.backend "wireguard") -}}
{{- range $name, $value := dict $port $denim.backendPort "ListenPortV6" $denim.backendPortv6 "MTU" $denim.mtu
  "VNI" $denim.vni "PersistentKeepaliveInterval" $denim.keepaliveInterval -}}
{{- if $value }}{{ $_ := set $backend $name (int $value) }}{{ end -}}
{{- end -}}
{{- range $name, $value := dict "GBP" $denim.GBP "DirectRouting" $denim.directRouting "PSK" $denim.psk
  "Mode" $denim.tunnelMode -}}
{{- if $value }}{{ $_ := set $backend $name $value }}{{ end -}}
{{- end -}}
{{- $_ := set $conf "Backend" (mergeOverwrite $backend $denim.backendOptions) -}}
{{- $conf | toPrettyJson }}
{{ end }}

{{- define "denim.pod" -}}
affinity:
  nodeAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      nodeSelectorTerms:
        - matchExpressions:
            - key: kubernetes.io/os
              operator: In
              values: [linux]
hostNetwork: true
priorityClassName: {{ .Values.denim.priorityClassName }}
{{- with .Values.denim.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.denim.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{- /* A container's; the argument: the capabilities that it needs. */ -}}
{{- define "denim.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsUser: 0
capabilities:
  drop: [ALL]
  {{- with . }}
  add: {{ toJson . }}
  {{- end }}
{{- end }}
