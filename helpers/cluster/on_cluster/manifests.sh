# shellcheck shell=bash
# What a folder of manifests holds: ROOT/NAME/vN/{manifest.json,metadata.json} and ROOT/NAME/latest. With NAME, the documents of its versions
# too; frames are keyed by the number of the name, and those of a version follow it.
# shellcheck disable=SC2154
main() {
  local folder inner number=0 document
  if [ ! -d "$ROOT" ]; then
    frame no-root - "no such folder"
    finish
  elif [ ! -r "$ROOT" ] || [ ! -x "$ROOT" ]; then
    frame no-root - "it may not be read"
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
