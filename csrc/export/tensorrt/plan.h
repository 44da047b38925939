// What a node with kernels of its own does, as text: shapes, scratch memory and launches as functions of the sizes of
// its inputs. fastprompt/export/_kernels/plans.py writes it; a line each:
//
//   inputs f32 f32 i64                types, also f16 bf16 i32 bool
//   output f32 0.0 0.1,16,/           type, and an expression for every axis
//   scratch 0.0,0.1,*,4,*             bytes of a buffer
//   launch kernel 128 2048 0.1,32,/ 0.0 1 i0 i1 n0.1 f0.5 o0 s0
//                                     name, threads, bytes of shared memory, the grid, the arguments: pointers of
//                                     inputs, outputs and scratch buffers, 32-bit integers, floats
//
// An expression is in postfix order, its parts separated by commas: 3.1 is axis 1 of input 3; + - * and the quotients
// ~ (rounded down) and / (rounded up), < (the smaller one), > (the larger one).
#pragma once
#include <string>
#include <vector>

#include "export/tensorrt/plugin.h"

namespace fastprompt::tensorrt {

class Expression {
 public:
  explicit Expression(const std::string& text);  // std::invalid_argument: malformed

  int64_t value(const Descriptions& in) const;
  const nvinfer1::IDimensionExpr* symbol(const nvinfer1::DimsExprs* in, nvinfer1::IExprBuilder& build) const;
  int32_t highest_input() const;  // -1: none

 private:
  struct Part {
    char operation;  // 'c': the number itself; 'd': a size of an input
    int64_t number;
    int32_t input, axis;
  };
  template <class T, class Number, class Size, class Apply>
  T evaluate(const Number& number, const Size& size, const Apply& apply) const;
  std::vector<Part> parts_;
};

struct Output {
  nvinfer1::DataType type;
  std::vector<Expression> shape;
};

struct Argument {
  char kind;  // i, o, s: place of a pointer; n: expression; f: number
  int32_t place;
  float number;
  std::vector<Expression> value;  // of n
};

struct Launch {
  std::string kernel;
  unsigned threads, shared;
  std::vector<Expression> grid;  // x, y, z
  std::vector<Argument> arguments;
};

struct Plan {
  std::vector<nvinfer1::DataType> inputs;
  std::vector<Output> outputs;
  std::vector<Expression> scratch;
  std::vector<Launch> launches;

  explicit Plan(const std::string& text);  // std::invalid_argument: malformed, or a place that does not exist
};

}  // namespace fastprompt::tensorrt
