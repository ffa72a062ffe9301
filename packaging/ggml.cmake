# Read by CMake where it begins to configure ggml (.cargo/config.toml). On Windows ggml's archives have no `lib` before their names,
# but with MinGW's naming the ggml crate looks for it.
if(WIN32 AND NOT MSVC)
  cmake_language(DEFER DIRECTORY "${CMAKE_SOURCE_DIR}" CALL set_target_properties ggml ggml-base ggml-cpu PROPERTIES PREFIX lib)
endif()
