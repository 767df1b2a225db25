# Where the forward pass runs: on the CPU, or on a GPU where Julia has the packages for one.

"""
`to` moves an array, or a model of Flux's, to the device; `back` moves an array to the CPU. `name` is `cpu` or the
GPU's kind, as `cuda`.
"""
struct Device
    name::String
    to
    back
end

const CPU = Device("cpu", identity, identity)

"Packages that make a GPU usable, in the order in which they are tried; those of a group belong together."
const GPU_PACKAGES = (("CUDA", "cuDNN"), ("AMDGPU",), ("Metal",))

"""
    find_gpu(flux) -> (device, "") or (nothing, the reason)

Load the packages that are there until Flux finds a GPU that works.
"""
function find_gpu(flux)
    troubles = String[]
    for names in GPU_PACKAGES
        ids = map(Base.identify_package, names)
        any(id -> id === nothing, ids) && continue
        try
            foreach(Base.require, ids)
            # What was loaded just now is newer than this function.
            return Base.invokelatest(gpu_of, flux), ""
        catch e
            push!(troubles, string(join(names, " and "), ": ", Base.invokelatest(one_line, e)))
        end
    end
    isempty(troubles) || return nothing, join(troubles, "; ")
    return nothing, "none of CUDA (with cuDNN), AMDGPU and Metal is installed in Julia's active project"
end

function gpu_of(flux)
    gpu = flux.gpu_device(force=true)
    # CUDADevice, AMDGPUDevice, MetalDevice
    return Device(lowercase(replace(string(nameof(typeof(gpu))), "Device" => "")), gpu, flux.cpu)
end

"""
The layer with its weights on the device. Flux's own layers are moved by Flux. Of the layers of this worker only
`Bound` has arrays: its real numbers are moved, its integers stay, as shapes and axes are read on the CPU.
"""
function placed(layer, device::Device)
    device === CPU && return layer
    layer isa Bound && return Bound(layer.f, Any[input isa Array{Float32} ? device.to(input) : input for input in layer.inputs])
    return parentmodule(typeof(layer)) in (OnnxLayers, FluxdropWorker) ? layer : device.to(layer)
end
