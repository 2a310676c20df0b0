"""Mistakes that learners make, by the function that they are made in: each with what it gives and why it is wrong."""

from cnn_vit.studies.homework.mistakes import attention, conv, dense, loss, norm, pool
from cnn_vit.studies.homework.mistakes.record import Mistake

MISTAKES: dict[str, tuple[Mistake, ...]] = {
    "relu_forward": dense.RELU_FORWARD,
    "relu_backward": dense.RELU_BACKWARD,
    "dense_forward": dense.DENSE_FORWARD,
    "dense_backward": dense.DENSE_BACKWARD,
    "conv_forward": conv.CONV_FORWARD,
    "conv_backward": conv.CONV_BACKWARD,
    "max_pool_forward": pool.MAX_POOL_FORWARD,
    "max_pool_backward": pool.MAX_POOL_BACKWARD,
    "average_pool_forward": pool.AVERAGE_POOL_FORWARD,
    "average_pool_backward": pool.AVERAGE_POOL_BACKWARD,
    "softmax_cross_entropy_forward": loss.CROSS_ENTROPY_FORWARD,
    "softmax_cross_entropy_backward": loss.CROSS_ENTROPY_BACKWARD,
    "batch_norm_forward": norm.BATCH_NORM_FORWARD,
    "batch_norm_backward": norm.BATCH_NORM_BACKWARD,
    "layer_norm_forward": norm.LAYER_NORM_FORWARD,
    "layer_norm_backward": norm.LAYER_NORM_BACKWARD,
    "attention_forward": attention.ATTENTION_FORWARD,
    "attention_backward": attention.ATTENTION_BACKWARD,
}
