#include "export/tensorrt/plan.h"

#include <algorithm>
#include <sstream>

using namespace nvinfer1;

namespace fastprompt::tensorrt {
namespace {

[[noreturn]] void malformed(const std::string& what) { throw std::invalid_argument("malformed plan: " + what); }

DataType type_of(const std::string& name) {
  if (name == "f32") return DataType::kFLOAT;
  if (name == "f16") return DataType::kHALF;
  if (name == "bf16") return DataType::kBF16;
  if (name == "i32") return DataType::kINT32;
  if (name == "i64") return DataType::kINT64;
  if (name == "bool") return DataType::kBOOL;
  malformed("type " + name);
}

int64_t whole(const std::string& text) {
  size_t used = 0;
  int64_t value = 0;
  try {
    value = std::stoll(text, &used);
  } catch (const std::exception&) {
  }
  if (used != text.size() || text.empty()) malformed("number " + text);
  return value;
}

constexpr char kOperations[] = "+-*~/<>";

DimensionOperation operation_of(char c) {
  switch (c) {
    case '+':
      return DimensionOperation::kSUM;
    case '-':
      return DimensionOperation::kSUB;
    case '*':
      return DimensionOperation::kPROD;
    case '~':
      return DimensionOperation::kFLOOR_DIV;
    case '/':
      return DimensionOperation::kCEIL_DIV;
    case '<':
      return DimensionOperation::kMIN;
    default:
      return DimensionOperation::kMAX;
  }
}

int64_t apply_to_numbers(char c, int64_t a, int64_t b) {
  if ((c == '~' || c == '/') && b <= 0) throw std::invalid_argument("a size is divided by zero");
  switch (c) {
    case '+':
      return a + b;
    case '-':
      return a - b;
    case '*':
      return a * b;
    case '~':
      return a / b;
    case '/':
      return (a + b - 1) / b;
    case '<':
      return std::min(a, b);
    default:
      return std::max(a, b);
  }
}

}  // namespace

Expression::Expression(const std::string& text) {
  std::istringstream in(text);
  int depth = 0;
  for (std::string part; std::getline(in, part, ',');) {
    const size_t dot = part.find('.');
    if (part.size() == 1 && std::string(kOperations).find(part[0]) != std::string::npos) {
      parts_.push_back({part[0], 0, 0, 0});
      depth -= 2;
      if (depth < 0) malformed(text);
    } else if (dot != std::string::npos) {
      const int64_t input = whole(part.substr(0, dot)), axis = whole(part.substr(dot + 1));
      if (input < 0 || input > 99 || axis < 0 || axis >= Dims::MAX_DIMS) malformed(text);
      parts_.push_back({'d', 0, static_cast<int32_t>(input), static_cast<int32_t>(axis)});
    } else {
      parts_.push_back({'c', whole(part), 0, 0});
    }
    ++depth;
  }
  if (depth != 1) malformed(text);
}

template <class T, class Number, class Size, class Apply>
T Expression::evaluate(const Number& number, const Size& size, const Apply& apply) const {
  std::vector<T> stack;
  for (const Part& part : parts_) {
    if (part.operation == 'c') {
      stack.push_back(number(part.number));
    } else if (part.operation == 'd') {
      stack.push_back(size(part.input, part.axis));
    } else {
      const T second = stack.back();
      stack.pop_back();
      stack.back() = apply(part.operation, stack.back(), second);
    }
  }
  return stack.back();
}

int64_t Expression::value(const Descriptions& in) const {
  const auto size = [&](int32_t input, int32_t axis) -> int64_t {
    need(axis < in.at(input).dims.nbDims, "an input has too few axes");
    return in[input].dims.d[axis];
  };
  return evaluate<int64_t>([](int64_t n) { return n; }, size, apply_to_numbers);
}

const IDimensionExpr* Expression::symbol(const DimsExprs* in, IExprBuilder& build) const {
  using Symbol = const IDimensionExpr*;
  const auto size = [&](int32_t input, int32_t axis) -> Symbol {
    need(axis < in[input].nbDims, "an input has too few axes");
    return in[input].d[axis];
  };
  return evaluate<Symbol>([&](int64_t n) { return build.constant(n); }, size,
                          [&](char c, Symbol a, Symbol b) { return build.operation(operation_of(c), *a, *b); });
}

int32_t Expression::highest_input() const {
  int32_t highest = -1;
  for (const Part& part : parts_)
    if (part.operation == 'd') highest = std::max(highest, part.input);
  return highest;
}

namespace {

Argument argument_of(const std::string& text) {
  Argument a{text[0], 0, 0.0f, {}};
  const std::string rest = text.substr(1);
  if (a.kind == 'n')
    a.value.emplace_back(rest);
  else if (a.kind == 'f')
    a.number = std::stof(rest);
  else if (a.kind == 'i' || a.kind == 'o' || a.kind == 's')
    a.place = static_cast<int32_t>(whole(rest));
  else
    malformed("argument " + text);
  return a;
}

// Every place that the plan names exists.
void check(const Plan& plan) {
  const auto known = [&](const std::vector<Expression>& all) {
    for (const Expression& e : all)
      if (e.highest_input() >= static_cast<int32_t>(plan.inputs.size())) malformed("an input that does not exist");
  };
  if (plan.inputs.empty() || plan.outputs.empty() || plan.launches.empty()) malformed("nothing to do");
  for (const Output& o : plan.outputs) {
    known(o.shape);
    if (o.shape.size() > Dims::MAX_DIMS) malformed("too many axes");
  }
  known(plan.scratch);
  for (const Launch& launch : plan.launches) {
    known(launch.grid);
    if (launch.threads == 0 || launch.threads > 1024) malformed("threads");
    for (const Argument& a : launch.arguments) {
      known(a.value);
      const size_t places = a.kind == 'i'   ? plan.inputs.size()
                            : a.kind == 'o' ? plan.outputs.size()
                                            : plan.scratch.size();
      if (a.kind != 'n' && a.kind != 'f' && (a.place < 0 || a.place >= static_cast<int32_t>(places)))
        malformed("a buffer that does not exist");
    }
  }
}

}  // namespace

Plan::Plan(const std::string& text) {
  std::istringstream lines(text);
  for (std::string line, word; std::getline(lines, line);) {
    std::istringstream in(line);
    in >> word;
    if (word == "inputs") {
      while (in >> word) inputs.push_back(type_of(word));
    } else if (word == "output") {
      in >> word;
      outputs.push_back({type_of(word), {}});
      while (in >> word) outputs.back().shape.emplace_back(word);
    } else if (word == "scratch") {
      in >> word;
      scratch.emplace_back(word);
    } else if (word == "launch") {
      Launch launch{};
      in >> launch.kernel >> launch.threads >> launch.shared;
      for (int k = 0; k < 3 && in >> word; ++k) launch.grid.emplace_back(word);
      if (launch.grid.size() != 3) malformed(line);
      while (in >> word) launch.arguments.push_back(argument_of(word));
      launches.push_back(launch);
    } else {
      malformed(line);
    }
  }
  check(*this);
}

}  // namespace fastprompt::tensorrt
