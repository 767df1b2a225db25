# The device that the forward pass runs on: the CPU, or a GPU if Julia has the packages for one.

"""
A device. `name` is `"cpu"` or the kind of GPU, such as `"cuda"`. `to_device` moves an array or a Flux layer to the
device; `to_cpu` moves an array to the CPU.
"""
struct Device
    name::String
    to_device
    to_cpu
end

const CPU = Device("cpu", identity, identity)

"Groups of packages that make a GPU usable, in the order in which they are tried. A group needs all of its packages."
const GPU_PACKAGES = (("CUDA", "cuDNN"), ("AMDGPU",), ("Metal",))

"""
    find_gpu(flux) -> (device, note)

Load the GPU packages that are installed in the active project, in the order of `GPU_PACKAGES`, until Flux finds a GPU
that works. Return its [`Device`](@ref) and `""`; if there is none, `nothing` and the reason. Does not throw.
"""
function find_gpu(flux)
    reasons = String[]
    for names in GPU_PACKAGES
        ids = map(Base.identify_package, names)
        any(id -> id === nothing, ids) && continue
        try
            foreach(Base.require, ids)
            # The packages were loaded just now, so their methods are newer than this function.
            return Base.invokelatest(make_gpu_device, flux), ""
        catch e
            push!(reasons, string(join(names, " and "), ": ", Base.invokelatest(one_line, e)))
        end
    end
    isempty(reasons) || return nothing, join(reasons, "; ")
    return nothing, "none of CUDA (with cuDNN), AMDGPU and Metal is installed in Julia's active project"
end

function make_gpu_device(flux)
    gpu = flux.gpu_device(force=true)
    # The types are named CUDADevice, AMDGPUDevice and MetalDevice.
    return Device(lowercase(replace(string(nameof(typeof(gpu))), "Device" => "")), gpu, flux.cpu)
end

"""
A layer of [`OnnxLayers`](@ref) in a model on a GPU. Its Float32 outputs are on the GPU. All other outputs are on the CPU,
because shapes and indices are read element by element.

`device_layer` computes on the GPU. It is `nothing` if the layer cannot; then, or if an input is on the CPU, `cpu_layer`
computes on the CPU, and Float32 arrays are copied from and to the GPU.
"""
struct DeviceLayer
    cpu_layer
    device_layer
    device::Device
end

function (p::DeviceLayer)(xs...)
    runs_on_device = p.device_layer !== nothing &&
        all(x -> eltype(x) === Float32, OnnxLayers.inputs_on_device(p.cpu_layer) === :first ? xs[1:1] : xs)
    return place_result(runs_on_device ? p.device_layer(xs...) : p.cpu_layer(map(p.device.to_cpu, xs)...), p.device)
end

"Move an output to where it belongs: Float32 arrays to the device, all others to the CPU."
place_result(y::Tuple, device) = map(part -> place_result(part, device), y)
place_result(y, device) = eltype(y) === Float32 ? device.to_device(y) : device.to_cpu(y)

Base.show(io::IO, p::DeviceLayer) = print(io, p.cpu_layer)

"""
    place_on_device(layer, device)

Return the layer as `device` runs it. Layers of Flux, and their weights, are moved; those of this package are wrapped in
a [`DeviceLayer`](@ref). On the CPU, return the layer itself.
"""
function place_on_device(layer, device::Device)
    device === CPU && return layer
    parentmodule(typeof(layer)) in (OnnxLayers, FluxdropWorker) || return device.to_device(layer)
    return DeviceLayer(layer, device_version(layer, device), device)
end

"The layer with its constant arrays on `device`, or `nothing` if the layer cannot compute there."
device_version(layer, device) = OnnxLayers.inputs_on_device(layer) === :none ? nothing : layer

function device_version(b::Bound, device)
    inputs = OnnxLayers.inputs_on_device(b)
    inputs === :none && return nothing
    inputs === :first && return first(b.inputs) === COMPUTED ? b : nothing
    all(input -> input isa Array{Float32}, filter(input -> input isa Array, b.inputs)) || return nothing
    return Bound(b.f, Any[input isa Array ? device.to_device(input) : input for input in b.inputs])
end
