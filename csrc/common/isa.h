// One kernel source, several instruction sets, one choice at run time.
//
// A *.simd.cpp file is compiled once per instruction set inside `namespace FP_ISA`; FP_DECLARE_ISA(result, name, args)
// declares all copies, FP_DISPATCH(name)(args...) calls the copy that this machine (or FASTPROMPT_ISA) selects.
// NOTE: such a file must not use std:: templates or inline functions shared with other files: the linker keeps one
// copy of them, perhaps the AVX-512 one, for every caller. tests/core/test_isa.py looks for such symbols.
#pragma once

// For small functions in headers that *.simd.cpp files share with others: no copy of them is ever linked.
#define FP_INLINE inline __attribute__((always_inline))

namespace fastprompt {

enum class Isa { baseline, avx2, avx512 };

Isa isa();       // the one in use
Isa best_isa();  // the best that was compiled and that this machine has
const char* isa_name(Isa isa);
void set_isa(Isa isa);  // at most best_isa(); for the tests

#if defined(__x86_64__)
#define FP_DECLARE_ISA(result, name, args) \
  namespace baseline {                     \
  result name args;                        \
  }                                        \
  namespace avx2 {                         \
  result name args;                        \
  }                                        \
  namespace avx512 {                       \
  result name args;                        \
  }
#define FP_DISPATCH(name)                                          \
  (::fastprompt::isa() == ::fastprompt::Isa::avx512 ? avx512::name \
   : ::fastprompt::isa() == ::fastprompt::Isa::avx2 ? avx2::name   \
                                                    : baseline::name)
#else
#define FP_DECLARE_ISA(result, name, args) \
  namespace baseline {                     \
  result name args;                        \
  }
#define FP_DISPATCH(name) (baseline::name)
#endif

}  // namespace fastprompt
