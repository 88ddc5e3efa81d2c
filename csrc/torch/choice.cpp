// trilemma::choose: takes the ways of an operator over from Python.

#include "choice.h"

#include "binding.h"

namespace trilemma {

Choices& choices() {
  static Choices made;
  return made;
}

}  // namespace trilemma

namespace {

void choose(std::string name, torch::stable::Tensor ways) {
  trilemma::Choice* choice = trilemma::choices().of(name);
  STD_TORCH_CHECK(choice, "choose: no native operator chooses by the name of ", name);
  STD_TORCH_CHECK(ways.is_cpu() && ways.scalar_type() == torch::headeronly::ScalarType::Byte && ways.is_contiguous() &&
                      ways.numel() == trilemma::Choice::kCells,
                  "choose: ways are not as many contiguous bytes as there are cells");
  choice->take(static_cast<const uint8_t*>(ways.const_data_ptr()));
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(trilemma, library) { library.def("choose(str name, Tensor ways) -> ()"); }

STABLE_TORCH_LIBRARY_IMPL(trilemma, CPU, library) { library.impl("choose", TORCH_BOX(&choose)); }
