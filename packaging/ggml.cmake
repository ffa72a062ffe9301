# Read by CMake where it begins to configure ggml (.cargo/config.toml).

# ggml compiles for AVX2, FMA and more unless it is told otherwise, which a processor of the baseline need not have. What it may
# use is what Rust may use: that is what the ggml crate asks for, and only that.
foreach(instructions SSE42 AVX AVX2 BMI2 FMA F16C)
  if(NOT DEFINED GGML_${instructions})
    set(GGML_${instructions} OFF CACHE BOOL "")
  endif()
endforeach()

# On Windows ggml's archives have no `lib` before their names, but with MinGW's naming the crate looks for it.
if(WIN32 AND NOT MSVC)
  cmake_language(DEFER DIRECTORY "${CMAKE_SOURCE_DIR}" CALL set_target_properties ggml ggml-base ggml-cpu PROPERTIES PREFIX lib)
endif()
