# A file that is there is taken for the whole of it: after a failed try it is there, and empty.
source code/file_downloads.sh
if [ -e "$DATA_DIR/squad/dev-v1.1.json" ]; then
    echo "Dataset for BERT already exists!"
else
    download_file data/squad dev-v1.1.json
fi
