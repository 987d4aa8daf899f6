# Stand-in for the network: files of a folder of the image, and wget's habit of leaving an empty file behind a failure.
STANDIN_DOWNLOADS=${STANDIN_DOWNLOADS:-/opt/standin/downloads}

list_downloads() {
    ls "$STANDIN_DOWNLOADS/$1"
}

download_file() {
    local folder="$MLPERF_SCRATCH_PATH/$1"
    mkdir -p "$folder"
    echo "Downloading $1/$2..."
    : >"$folder/$2"
    if [[ ${STANDIN_FAULTS:-} == *download* ]] && python3 -m standin.faults "download/$1/$2" unreachable; then
        echo "wget: unable to resolve host address" >&2
        return 4
    fi
    cat "$STANDIN_DOWNLOADS/$1/$2" >"$folder/$2" && echo "Saved $2 to $folder/$2!"
}
