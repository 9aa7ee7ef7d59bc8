"""Every operator of the ONNX standard has been decided about: none is missing by accident."""

import onnx

from gcpp_edge.export.decompose import AT_OUR_OPSET, INLINED, NEWER
from gcpp_edge.export.recurrent import GATES as RECURRENT
from gcpp_edge.export.vjp import RULES, WITHOUT_GRADIENT

INLINED_WHEN_NEWER = {"CausalConvWithState", "RotaryEmbedding"}  # by onnx's own definition (opsets.py)
REMOVED = {"Upsample", "Scatter"}  # the converter writes what replaced them
FOLDED = {"DequantizeLinear", "QuantizeLinear"}  # of constants, or both as one node (recognise.py)
REFUSED = {  # a missing rule, or a check before it, names them
    "control flow": {"If", "Loop", "Scan", "SequenceMap", "LinearAttention"},
    "sequences, options and strings": {
        *("ConcatFromSequence", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase"),
        *("SequenceInsert", "SequenceLength", "SplitToSequence", "ReverseSequence"),
        *("Optional", "OptionalGetElement", "OptionalHasElement"),
        *("RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer"),
    },
    "integer arithmetic": {
        *("ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul", "BitCast"),
    },
    "sizes that hang on the data": {"Compress", "Unique"},
    "needs a scatter that adds": {"DeformConv", "GridSample", "MaxRoiPool", "MaxUnpool", "RoiAlign"},
    "losses": {"NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"},
    "signals and matrices": {"AffineGrid", "DFT", "Det", "ImageDecoder", "STFT"},
    "newer than our opset": {"CumProd", "TensorScatter"},
}


def operators():
    return {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}


def test_every_operator_of_the_standard_has_been_decided_about():
    rules = {name for domain, name in RULES if not domain} | set(RECURRENT)
    decided = rules | WITHOUT_GRADIENT | {*AT_OUR_OPSET, *NEWER, *INLINED} | INLINED_WHEN_NEWER | REMOVED | FOLDED
    refused = set().union(*REFUSED.values())
    assert not decided & refused
    assert operators() - decided - refused == set()


def test_no_rule_is_for_an_operator_that_onnx_does_not_know():
    assert {name for domain, name in RULES if not domain} | WITHOUT_GRADIENT <= operators()
