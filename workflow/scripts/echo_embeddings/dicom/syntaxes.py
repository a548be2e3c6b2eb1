"""The transfer syntaxes and photometric interpretations that can be decoded."""

from pydicom import uid

JPEG = frozenset({uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1})
LOSSLESS_JPEG = frozenset({uid.JPEGLossless, uid.JPEGLosslessSV1})
JPEG_LS = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)
JPEG_2000 = (uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)
BY_PLUGIN = (*JPEG_LS, *JPEG_2000)
NATIVE = frozenset(
    {
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.DeflatedExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
    }
)
VIDEO = frozenset(uid.MPEGTransferSyntaxes)  # MPEG-2, H.264 and HEVC
SAMPLES = {
    "RGB": 3, "YBR_FULL": 3, "YBR_FULL_422": 3, "YBR_ICT": 3, "YBR_RCT": 3,
    "PALETTE COLOR": 1, "MONOCHROME1": 1, "MONOCHROME2": 1,
}  # fmt: skip
VIDEO_COLOURS = ("YBR_PARTIAL_420", "YBR_PARTIAL_422", "YBR_FULL", "YBR_FULL_422", "RGB")  # the stream decides
