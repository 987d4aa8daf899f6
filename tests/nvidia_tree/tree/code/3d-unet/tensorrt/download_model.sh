source code/file_downloads.sh
download_file models/3d-unet-kits19 3dUNetKiTS19.onnx
