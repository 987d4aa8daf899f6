"""What all configs of 3d-unet share."""

from code.common.constants import Benchmark

from configs.configuration import BenchmarkConfiguration


class GPUBaseConfig(BenchmarkConfiguration):
    """Fields of every config of 3d-unet."""

    benchmark = Benchmark.UNET3D
    map_path = "data_maps/kits19/val_map.txt"
    tensor_path = "build/preprocessed_data/KiTS19/inference/int8"
    precision = "int8"
    input_dtype = "int8"
    input_format = "linear"
    use_graphs = False
