# Whether CUDA is compiled: never asks whether this machine has a GPU.
#   TRILEMMA_CUDA=auto   where torch has CUDA and nvcc is found      1      the same, or an error
#                check   the sources are compiled, nothing installed  0      nothing
# Sets TRILEMMA_CUDA_WHY_NOT to the reason where nothing is.

set(TRILEMMA_CUDA auto CACHE STRING "auto, 0, 1 or check")
set(TRILEMMA_CUDA_ARCHS "80;86;89;90;100;120" CACHE STRING "compute capabilities; the last also as PTX")
if(NOT TRILEMMA_CUDA MATCHES "^(auto|0|1|check)$")
  message(FATAL_ERROR "TRILEMMA_CUDA=${TRILEMMA_CUDA} is unknown; choose auto, 0, 1 or check")
endif()

find_program(TRILEMMA_NVCC nvcc HINTS ENV CUDACXX ENV CUDA_HOME /usr/local/cuda PATH_SUFFIXES bin)
set(TRILEMMA_CUDA_WHY_NOT "")
if(TRILEMMA_CUDA STREQUAL "0")
  set(TRILEMMA_CUDA_WHY_NOT "TRILEMMA_CUDA=0")
elseif(NOT torch_cuda AND NOT TRILEMMA_CUDA STREQUAL "check")
  set(TRILEMMA_CUDA_WHY_NOT "torch ${torch_version} has no CUDA")
elseif(NOT TRILEMMA_NVCC)
  set(TRILEMMA_CUDA_WHY_NOT "nvcc was not found")
endif()

set(TRILEMMA_CUDA_BUILT "")
if(NOT TRILEMMA_CUDA_WHY_NOT)
  string(REPLACE "," ";" TRILEMMA_CUDA_ARCHS "${TRILEMMA_CUDA_ARCHS}")
  list(TRANSFORM TRILEMMA_CUDA_ARCHS APPEND "-real" OUTPUT_VARIABLE CMAKE_CUDA_ARCHITECTURES)
  list(GET TRILEMMA_CUDA_ARCHS -1 newest)
  list(APPEND CMAKE_CUDA_ARCHITECTURES "${newest}-virtual")
  set(CMAKE_CUDA_COMPILER "${TRILEMMA_NVCC}")
  enable_language(CUDA)
  if(NOT TRILEMMA_CUDA STREQUAL "check")
    list(JOIN TRILEMMA_CUDA_ARCHS " " architectures)
    set(TRILEMMA_CUDA_BUILT "${CMAKE_CUDA_COMPILER_VERSION} for ${architectures}")
  else()
    set(TRILEMMA_CUDA_WHY_NOT "TRILEMMA_CUDA=check")
  endif()
elseif(NOT TRILEMMA_CUDA MATCHES "^(auto|0)$")
  message(FATAL_ERROR "TRILEMMA_CUDA=${TRILEMMA_CUDA}, but ${TRILEMMA_CUDA_WHY_NOT}")
endif()
message(STATUS "CUDA: ${TRILEMMA_CUDA_BUILT}${TRILEMMA_CUDA_WHY_NOT}, nvcc ${CMAKE_CUDA_COMPILER_VERSION}")
