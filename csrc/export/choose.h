// Attributes of exported nodes that are words.
#pragma once
#include <initializer_list>
#include <stdexcept>
#include <string>

namespace fastprompt {

// The place of a text in a list, as the enum that has the same order.
template <class E>
E choose(const std::string& given, std::initializer_list<const char*> names) {
  int n = 0;
  for (const char* name : names) {
    if (given == name) return static_cast<E>(n);
    ++n;
  }
  throw std::invalid_argument("an attribute has an unknown value: " + given);
}

}  // namespace fastprompt
