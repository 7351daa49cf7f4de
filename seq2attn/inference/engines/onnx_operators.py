"""OPERATORS: how the operators of torch that decoders use are written as ONNX.

What is not here, an exported model cannot use. Names and arguments are those of torch's operators.
"""

import operator

from seq2attn.inference.engines.onnx_pointwise import POINTWISE
from seq2attn.inference.engines.onnx_products import PRODUCTS
from seq2attn.inference.engines.onnx_shapes import SHAPES

OF_SIZES = {operator.add: "Add", operator.sub: "Sub", operator.mul: "Mul", operator.floordiv: "Div"}
OPERATORS = {**POINTWISE, **PRODUCTS, **SHAPES}
