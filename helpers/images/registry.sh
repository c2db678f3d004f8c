# shellcheck shell=bash
# Asks a container registry for the digest of a tag, with curl, but with enroot's credentials and its setting for plain http. For inspect.sh
# on the login node and import_job.sh on a compute node. No secret is in an argument: curl reads them from a file or from stdin.
# shellcheck disable=SC2034

accept='application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.index.v1+json'
accept+=', application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json'

# setting NAME: sets $value to a setting of enroot, as enroot reads it: from the environment, else from the first line `NAME VALUE` or
# `NAME=VALUE` of its configuration, in which the shell expands variables. Fails if it is not set.
setting() {
  local file name text
  value=${!1-}
  [ -z "$value" ] || return 0
  for file in "${ENROOT_SYSCONF_PATH:-/etc/enroot}"/{enroot.conf,enroot.conf.d/*.conf}; do
    [ -r "$file" ] || continue
    while IFS=$' \t=' read -r name text; do
      [ "$name" = "$1" ] && value=$(eval "echo $text" 2> /dev/null) && [ -n "$value" ] || continue
      return 0
    done < "$file"
  done
  return 1
}
setting ENROOT_CONFIG_PATH || value=${XDG_CONFIG_HOME:-$HOME/.config}/enroot
credentials=$value/.credentials

# With ENROOT_ALLOW_HTTP, enroot uses http, and https only if it is redirected to it.
scheme=https
allow_http() {
  setting ENROOT_ALLOW_HTTP || return 0
  case ${value,,} in yes | y | true | 1 | on) scheme=http ;; esac
}

# fetch OUT WORD…: runs curl; sets $status (000: no answer), and writes OUT.head, OUT.body and curl's messages in OUT.said
fetch() {
  local out=$1
  shift
  status=$(curl --silent --show-error --location --proto "=$scheme,https" --connect-timeout 5 --max-time 20 --output "$out.body" \
    --dump-header "$out.head" --write-out '%{http_code}' "$@" 2> "$out.said")
  status=${status:-000}
}
# header OUT NAME: sets $value to the header's last value
header() { value=$(sed -n "s/^$2: *//Ip" "$1.head" 2> /dev/null | tr -d '\r' | tail -n 1); }
command='.*password[[:space:]].*\$[({A-Za-z_]'
# has_line HOST [REST]: whether the credentials file has a line for the host, which continues with REST
has_line() { grep -qsE "^[[:space:]]*machine[[:space:]]+${1//./\\.}([[:space:]]|$)${2-}" "$credentials"; }

# ask_registry OUT HOST NAME TAG: sets $status, $digest, $type, $realm (the host that gives tokens) and $words. Makes three calls at most.
# It uses HEAD, since registries that count pulls (Docker Hub) count a GET of a manifest.
ask_registry() {
  local out=$1 url=$scheme://$2/v2/$3/manifests/$4 host=${2%:*} challenge service scope answer
  auth=() secret='' realm=''
  fetch "$out" --head --header "Accept: $accept" -- "$url"
  if [ "$status" = 401 ]; then
    header "$out" www-authenticate
    challenge=$value
    if [[ ${challenge,,} == basic* ]]; then
      realm=$host
      if has_line "$host"; then auth=(--netrc-file "$credentials"); fi
    elif [[ $challenge =~ [Rr]ealm=\"([^\"]+)\" ]]; then
      answer=${BASH_REMATCH[1]}
      realm=${answer#*://}
      realm=${realm%%[/:?]*}
      # nvcr.io redirects to authn.nvidia.com, for which the credentials must have a line too.
      [ "$realm" != nvcr.io ] || realm=authn.nvidia.com
      [[ $challenge =~ service=\"([^\"]*)\" ]] && service=${BASH_REMATCH[1]}
      [[ $challenge =~ scope=\"([^\"]*)\" ]] && scope=${BASH_REMATCH[1]}
      if has_line "$realm" || has_line "$host"; then auth=(--netrc-file "$credentials"); fi
      fetch "$out" --get ${auth[@]+"${auth[@]}"} --data-urlencode "service=${service-}" --data-urlencode "scope=${scope-}" -- "$answer"
      auth=()
      if [ "$status" = 200 ] && [[ $(< "$out.body") =~ \"(token|access_token)\"[[:space:]]*:[[:space:]]*\"([^\"]+)\" ]]; then
        secret="header = \"Authorization: Bearer ${BASH_REMATCH[2]}\""
        auth=(--config -)
      fi
    fi
    if ((${#auth[@]})); then fetch "$out" --head ${auth[@]+"${auth[@]}"} --header "Accept: $accept" -- "$url" <<< "$secret"; fi
  fi
  header "$out" content-type
  type=${value%%;*}
  header "$out" docker-content-digest
  digest=$value
  if [ "$status" = 200 ] && [ -z "$digest" ]; then
    get_manifest "$out" "$2" "$3" "$4"
    digest=sha256:$(sha256sum < "$out.body" | cut -d' ' -f1)
  fi
  words=$(tr -d '\0' < "$out.said" | tail -n 1)
  # enroot runs commands in the credentials, such as $(aws ecr get-login-password). curl does not, so its refusal means nothing.
  if [[ $status == 40[13] ]] && { has_line "$host" "$command" || has_line "${realm:-.}" "$command"; }; then
    status=000
    words="the password in $credentials comes from a command, which only enroot runs"
  fi
}
# get_manifest OUT HOST NAME DIGEST: writes OUT.body, with the authorization that ask_registry found
get_manifest() { fetch "$1" ${auth[@]+"${auth[@]}"} --header "Accept: $accept" -- "$scheme://$2/v2/$3/manifests/$4" <<< "$secret"; }
