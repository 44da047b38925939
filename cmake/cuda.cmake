# nvcc: the one that CMAKE_CUDA_COMPILER, CUDACXX or PATH name, else the one in the wheels nvidia-cuda-nvcc,
# -runtime, -cccl, nvidia-nvvm and nvidia-cuda-crt of this interpreter.
if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  find_program(nvcc_on_path nvcc)
  if(NOT nvcc_on_path)
    find_package(Python 3.10 COMPONENTS Interpreter REQUIRED)
    execute_process(
      COMMAND ${Python_EXECUTABLE} -c
              "import nvidia, pathlib; print(next(d for p in nvidia.__path__ for d in sorted(pathlib.Path(p).glob('cu*')) if (d / 'bin/nvcc').exists()))"
      OUTPUT_VARIABLE wheels OUTPUT_STRIP_TRAILING_WHITESPACE
      RESULT_VARIABLE failed ERROR_QUIET)
    if(failed)
      message(FATAL_ERROR "FASTPROMPT_CUDA: there is no nvcc. Install the toolkit, set CUDACXX, or pip install "
                          "nvidia-cuda-nvcc nvidia-cuda-runtime nvidia-cuda-cccl nvidia-nvvm nvidia-cuda-crt (one "
                          "version of all) and build with --no-build-isolation")
    endif()
    set(CMAKE_CUDA_COMPILER ${wheels}/bin/nvcc)
    set(CUDAToolkit_ROOT ${wheels})
    string(APPEND CMAKE_CUDA_FLAGS_INIT " -L${wheels}/lib") # nvcc.profile looks in lib64/
  endif()
endif()
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  # PTX, which the driver compiles at its first use; that of sm_75 knows no cp.async.
  set(CMAKE_CUDA_ARCHITECTURES 75-virtual 80-virtual)
endif()
set(CMAKE_CUDA_RUNTIME_LIBRARY Static) # the module imports where there is no driver
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
