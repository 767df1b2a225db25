# Where the forward pass runs: on the CPU, or on a GPU where Julia has the packages for one.

"""
`to` moves an array, or a model of Flux's, to the device; `back` moves an array to the CPU. `name` is `cpu` or the
GPU's kind, as `cuda`.
"""
struct Device
    name::String
    to_device
    to_cpu
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
            return Base.invokelatest(make_gpu_device, flux), ""
        catch e
            push!(troubles, string(join(names, " and "), ": ", Base.invokelatest(one_line, e)))
        end
    end
    isempty(troubles) || return nothing, join(troubles, "; ")
    return nothing, "none of CUDA (with cuDNN), AMDGPU and Metal is installed in Julia's active project"
end

function make_gpu_device(flux)
    gpu = flux.gpu_device(force=true)
    # CUDADevice, AMDGPUDevice, MetalDevice
    return Device(lowercase(replace(string(nameof(typeof(gpu))), "Device" => "")), gpu, flux.cpu)
end

"""
A layer of [`OnnxLayers`](@ref) where there is a device. Real numbers live there; all else lives on the CPU, as shapes
and positions are read there. `moved` computes on the device; where it is `nothing`, or an input is on the CPU, `layer`
computes on the CPU, and its real numbers come and go.
"""
struct DeviceLayer
    cpu_layer
    device_layer
    device::Device
end

function (p::DeviceLayer)(xs...)
    runs_on_device = p.device_layer !== nothing && all(x -> eltype(x) === Float32, OnnxLayers.inputs_on_device(p.cpu_layer) === :first ? xs[1:1] : xs)
    return place_result(runs_on_device ? p.device_layer(xs...) : p.cpu_layer(map(p.device.to_cpu, xs)...), p.device)
end

place_result(y::Tuple, device) = map(part -> place_result(part, device), y)
place_result(y, device) = eltype(y) === Float32 ? device.to_device(y) : device.to_cpu(y)

Base.show(io::IO, p::DeviceLayer) = print(io, p.cpu_layer)

"The layer, on the device if it is not the CPU. Flux moves its own layers, with their weights."
function place_on_device(layer, device::Device)
    device === CPU && return layer
    parentmodule(typeof(layer)) in (OnnxLayers, FluxdropWorker) || return device.to_device(layer)
    return DeviceLayer(layer, device_version(layer, device), device)
end

device_version(layer, device) = OnnxLayers.inputs_on_device(layer) === :none ? nothing : layer

function device_version(b::Bound, device)
    inputs = OnnxLayers.inputs_on_device(b)
    inputs === :none && return nothing
    inputs === :first && return first(b.inputs) === COMPUTED ? b : nothing
    all(input -> input isa Array{Float32}, filter(input -> input isa Array, b.inputs)) || return nothing
    return Bound(b.f, Any[input isa Array ? device.to_device(input) : input for input in b.inputs])
end
