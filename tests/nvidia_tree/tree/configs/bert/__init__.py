"""What all configs of bert share."""

from code.common.constants import Benchmark

from configs.configuration import BenchmarkConfiguration


class GPUBaseConfig(BenchmarkConfiguration):
    """Fields of every config of bert."""

    benchmark = Benchmark.BERT
    tensor_path = "build/preprocessed_data/squad_tokenized/input_ids.npy"
    precision = "int8"
    input_dtype = "int32"
    input_format = "linear"
    use_graphs = False
    bert_opt_seqlen = 384
    coalesced_tensor = True
