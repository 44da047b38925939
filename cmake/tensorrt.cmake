# libfastprompt_tensorrt.so: plugins of TensorRT, to which it is not linked. Only headers are needed: TENSORRT_INCLUDE_DIR,
# those on the machine, or those in the wheel kernel-lens (TensorRT 10.14) of this interpreter.
find_path(TENSORRT_INCLUDE_DIR NvInferRuntime.h PATHS ENV TENSORRT_ROOT PATH_SUFFIXES include)
if(NOT TENSORRT_INCLUDE_DIR)
  find_package(Python 3.10 COMPONENTS Interpreter REQUIRED)
  execute_process(
    COMMAND ${Python_EXECUTABLE} -c
            "import importlib.util as u, pathlib; print(pathlib.Path(u.find_spec('kernel_lens').origin).parent / 'include/tensorrt')"
    OUTPUT_VARIABLE headers OUTPUT_STRIP_TRAILING_WHITESPACE
    RESULT_VARIABLE failed ERROR_QUIET)
  if(failed)
    message(FATAL_ERROR "FASTPROMPT_TENSORRT: there are no headers of TensorRT. Set TENSORRT_INCLUDE_DIR to the folder of "
                        "NvInferRuntime.h, of the version that will load the plugins, or pip install --no-deps kernel-lens")
  endif()
  set(TENSORRT_INCLUDE_DIR ${headers} CACHE PATH "folder of NvInferRuntime.h" FORCE)
endif()

file(GLOB tensorrt_sources CONFIGURE_DEPENDS csrc/export/tensorrt/*.cpp csrc/export/tensorrt/*.cu csrc/geodesic/cuda_*.cu)
add_library(fastprompt_tensorrt MODULE ${tensorrt_sources})
target_include_directories(fastprompt_tensorrt PRIVATE csrc)
# They warn about themselves.
target_include_directories(fastprompt_tensorrt SYSTEM PRIVATE ${TENSORRT_INCLUDE_DIR} ${CUDAToolkit_INCLUDE_DIRS})
target_compile_options(
  fastprompt_tensorrt PRIVATE $<$<COMPILE_LANGUAGE:CXX>:${flags}>
                              $<$<COMPILE_LANGUAGE:CUDA>:-fmad=false -Xcompiler=-Wall,-Wextra>) # the bits of the CPU
set_target_properties(fastprompt_tensorrt PROPERTIES CUDA_STANDARD 17 CUDA_VISIBILITY_PRESET hidden
                                                     VISIBILITY_INLINES_HIDDEN ON)
target_link_libraries(fastprompt_tensorrt PRIVATE CUDA::cudart_static ${CMAKE_DL_LIBS})
if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
  file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/tensorrt.map
       "{ global: getCreators; setLoggerFinder; fastprompt_plugins; local: *; };\n")
  target_link_options(fastprompt_tensorrt PRIVATE -Wl,--version-script=${CMAKE_CURRENT_BINARY_DIR}/tensorrt.map
                                                     -Wl,--no-undefined) # or it would fail where it is loaded
endif()
install(TARGETS fastprompt_tensorrt DESTINATION fastprompt)
