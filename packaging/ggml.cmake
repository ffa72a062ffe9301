# Read by CMake where it begins to configure ggml (.cargo/config.toml).

# ggml compiles for AVX2, FMA and more unless it is told otherwise, which a processor of the baseline need not have. What it may
# use is what Rust may use: that is what the ggml crate asks for, and only that.
foreach(instructions SSE42 AVX AVX2 BMI2 FMA F16C)
  if(NOT DEFINED GGML_${instructions})
    set(GGML_${instructions} OFF CACHE BOOL "")
  endif()
endforeach()

# The name that Rust's baseline goes by (.cargo/config.toml) would tune C and C++ for that processor, too.
foreach(language C CXX)
  string(REPLACE "-march=nehalem" "-march=x86-64-v2" CMAKE_${language}_FLAGS "${CMAKE_${language}_FLAGS}")
endforeach()

# On Windows ggml's archives have no `lib` before their names, but with MinGW's naming the crate looks for it.
if(WIN32 AND NOT MSVC)
  cmake_language(DEFER DIRECTORY "${CMAKE_SOURCE_DIR}" CALL set_target_properties ggml ggml-base ggml-cpu PROPERTIES PREFIX lib)
endif()

# What esolm never calls and takes most of the time to compile. llama.cpp's own library stands beside ggml in its crate, which links
# it: an empty one does. Nor are llama.cpp's hashes needed, ggml's training, and its reader of files (esolm has one).
function(esolm_without_the_rest)
  if(TARGET llama)
    file(WRITE "${CMAKE_BINARY_DIR}/nothing.cpp" "")
    set_property(TARGET llama PROPERTY SOURCES "${CMAKE_BINARY_DIR}/nothing.cpp")
  endif()
  if(TARGET vendor-hash)
    set_property(TARGET vendor-hash PROPERTY EXCLUDE_FROM_ALL TRUE)
  endif()
  if(TARGET ggml-base)
    get_target_property(sources ggml-base SOURCES)
    list(FILTER sources EXCLUDE REGEX "^(ggml-opt|gguf)[.]cpp$")
    set_property(TARGET ggml-base PROPERTY SOURCES ${sources})
  endif()
endfunction()
cmake_language(DEFER DIRECTORY "${CMAKE_SOURCE_DIR}" CALL esolm_without_the_rest)

# What esolm's graphs never call of CUDA's kernels: types of weights and caches that it does not have, operations of other
# networks. With less optimization they compile in half of the time.
function(esolm_other_kernels)
  if(TARGET ggml-cuda)
    get_target_property(sources ggml-cuda SOURCES)
    list(FILTER sources INCLUDE REGEX "/(mmq-instance-(iq[123]|iq4_xs|mxfp4|nvfp4|q[12]_0)|fattn-vec-instance-(q|bf16)|allreduce\
|argsort|top-?k|conv[-23]|im2col|col2im|pool|upscale|ssm-|wkv|gla|gated_delta|lightning|dsv4|snake|moe|mmid|tri|solve_tri|cumsum|fwht\
|cross-entropy|opt-step|out-prod|count-equal|pad|roll)[^/]*[.]cu$")
    set_source_files_properties(${sources} TARGET_DIRECTORY ggml-cuda PROPERTIES COMPILE_OPTIONS "-Xcicc=-O1;-Xptxas=-O1")
  endif()
endfunction()
cmake_language(DEFER DIRECTORY "${CMAKE_SOURCE_DIR}" CALL esolm_other_kernels)
