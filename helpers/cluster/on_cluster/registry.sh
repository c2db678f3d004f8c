# shellcheck shell=bash
# Asking a containers registry which digest a tag has, with curl, as enroot itself would: its credentials, its say on plain http.
# For images.sh, on the login node, and import_job.sh, on a compute node. No secret is in an argument: curl reads them from a file or stdin.
# shellcheck disable=SC2034

accept='application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.index.v1+json'
accept+=', application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json'
credentials=${ENROOT_CONFIG_PATH:-${XDG_CONFIG_HOME:-$HOME/.config}/enroot}/.credentials

# enroot with ENROOT_ALLOW_HTTP asks by http, and by https only where it is sent there.
scheme=https
allow_http() {
  local allowed=${ENROOT_ALLOW_HTTP-} file name value
  if [ -z "$allowed" ]; then
    for file in "${ENROOT_SYSCONF_PATH:-/etc/enroot}"/enroot.conf "${ENROOT_SYSCONF_PATH:-/etc/enroot}"/enroot.conf.d/*.conf; do
      [ -r "$file" ] || continue
      while read -r name value _; do [ "$name" != ENROOT_ALLOW_HTTP ] || allowed=$value; done < "$file"
    done
  fi
  case $allowed in '' | no | n | false | 0) ;; *) scheme=http ;; esac
}

# fetch OUT WORD…: with curl; the status in $status (000: no answer), headers and body in OUT.head and OUT.body, curl's words in OUT.said
fetch() {
  local out=$1
  shift
  status=$(curl --silent --show-error --location --proto "=$scheme,https" --connect-timeout 5 --max-time 20 --output "$out.body" \
    --dump-header "$out.head" --write-out '%{http_code}' "$@" 2> "$out.said")
  status=${status:-000}
}
# header OUT NAME: its last value, in $value
header() {
  local line
  value=
  while read -r line; do
    line=${line%$'\r'}
    if [[ ${line,,} == "$2:"* ]]; then
      value=${line#*:}
      value=${value# }
    fi
  done 2> /dev/null < "$1.head"
}
command='.*password[[:space:]].*\$[({A-Za-z_]'
# has_line HOST [REST]: whether the credentials file has a line for it, which goes on so
has_line() { grep -qsE "^[[:space:]]*machine[[:space:]]+${1//./\\.}([[:space:]]|$)${2-}" "$credentials"; }

# ask_registry OUT HOST NAME TAG: status, digest, type, realm (the host that gives tokens) and words, as variables. Three calls at most.
# HEAD: a GET of a manifest counts as a pull where pulls are counted (Docker Hub).
ask_registry() {
  local out=$1 url=$scheme://$2/v2/$3/manifests/$4 host=${2%:*} challenge service scope answer
  auth=()
  secret=
  realm=
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
      # nvcr.io sends on to authn.nvidia.com, for which the credentials must have a line too.
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
  # enroot runs what a line holds, as its documentation has $(aws ecr get-login-password). curl does not: its refusal says nothing.
  if [[ $status == 40[13] ]] && { has_line "$host" "$command" || has_line "${realm:-.}" "$command"; }; then
    status=000
    words="the password in $credentials is made by a command, which enroot alone runs"
  fi
}
# get_manifest OUT HOST NAME DIGEST: into OUT.body, with what ask_registry found to be let in with
get_manifest() { fetch "$1" ${auth[@]+"${auth[@]}"} --header "Accept: $accept" -- "$scheme://$2/v2/$3/manifests/$4" <<< "$secret"; }
