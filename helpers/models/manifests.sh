# shellcheck shell=bash
# Needs: cluster/common.sh
# Lists a folder of manifests: ROOT/NAME/vN/{manifest.json,metadata.json} and ROOT/NAME/latest. With NAME, also the documents of its
# versions. The key of a frame is the number of the name; the frames of a version follow it.
# shellcheck disable=SC2154
main() {
  local folder inner number=0 document
  if [ ! -d "$ROOT" ]; then
    frame no-root - "no such folder"
    finish
  elif [ ! -r "$ROOT" ] || [ ! -x "$ROOT" ]; then
    frame no-root - "it cannot be read"
    finish
  fi
  for folder in "$ROOT"/*/; do
    [ -d "$folder" ] || continue
    folder=${folder%/}
    number=$((number + 1))
    frame name "$number" "${folder##*/}"
    [ ! -r "$folder/latest" ] || frame latest "$number" "$(< "$folder/latest")"
    for inner in "$folder"/v*/; do
      inner=${inner%/}
      [[ ${inner##*/} =~ ^v[0-9]+$ ]] || continue
      frame version "$number" "${inner##*/}"
      [ "$NAME" = "${folder##*/}" ] || continue
      for document in manifest metadata; do
        if [ -r "$inner/$document.json" ]; then
          frame "$document" "$number" "$(< "$inner/$document.json")"
        elif [ -e "$inner/$document.json" ]; then
          frame closed - "$inner/$document.json"
        fi
      done
    done
  done
  finish
}
