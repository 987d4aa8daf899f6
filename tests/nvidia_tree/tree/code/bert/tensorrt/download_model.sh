# Each is fetched anew every time, and the exit code is the last one's alone.
source code/file_downloads.sh
download_file models/bert bert_large_v1_1.onnx
download_file models/bert bert_large_v1_1_fake_quant.onnx
download_file models/bert vocab.txt
