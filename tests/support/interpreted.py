"""All cases of a family's kernels in Triton's interpreter, which a process is either for or not."""


def run_all(cases, check):
    """Says how many there were. Triton's interpreter takes the bits of bfloat16 for integers in a product."""
    for case in cases:
        for dtype in ("fp32", "fp16"):
            check(case, dtype, 80, "tf32x3")
    print(2 * len(cases), "cases")
