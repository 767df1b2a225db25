# Native Flux models: a bundle's flux_model.jl, which is Julia code that the owner of the machine installed.

"""
The model that `build_model()` of `file` returned, in test mode and on the `device`. `digest` is the SHA-256 of the file
in hex.

`quick` is its [`fast`](@ref) model, or `nothing`. It is used once it `agrees` with the model: the first forward pass
runs both, as a struct of the model's own may use its layers in ways that `fast` cannot know.
"""
mutable struct NativeModel
    file::String
    digest::String
    model::Any
    quick::Any
    agrees::Bool
    device::Device
end

"""
    load_native(file, backend) -> NativeModel

Evaluate `file` in a new module and call its `build_model()`. Throws [`GraphError`](@ref) if the file does not exist or
fails, or if the backend is not Flux.
"""
function load_native(file, backend::Backend)
    backend.flux === nothing && throw(GraphError("$file needs Flux, which this worker does not have: $(backend.note)"))
    isfile(file) || throw(GraphError("there is no file $file"))
    try
        digest = bytes2hex(sha256(read(file)))
        space = evaluate(file)
        # The file's methods, and those of packages it loaded, are newer than this function.
        return Base.invokelatest(native, space, file, digest, backend)
    catch e
        e isa InterruptException && rethrow()
        throw(GraphError("$file: $(Base.invokelatest(one_line, e))"))
    end
end

"Evaluate a flux_model.jl in a new module, and return that. Throws what the file throws."
function evaluate(file)
    space = Core.eval(Module(:Bundle), :(module FluxModel end))
    Base.include(space, file)
    return space
end

"Call `build_model()` of the module `space`. Throws [`GraphError`](@ref) if it returns something that cannot be called."
function native(space, file, digest, backend)
    isdefined(space, :build_model) || throw(GraphError("it does not define build_model()"))
    model = space.build_model()
    isempty(methods(model)) && throw(GraphError("build_model() returned $(summary(model)), which cannot be called"))
    backend.flux.testmode!(model)
    quick = backend.name == "fast" ? fast(model) : nothing
    return NativeModel(file, digest, backend.device.to_device(model), quick, false, backend.device)
end

"""
    predict(native, x::Array{Float32}) -> Array{Float32}

Run the forward pass on `x` of (W, H, C, N). The result is (labels, N). Throws [`InputError`](@ref) if `x` is empty, and
[`ComputeError`](@ref) if the model fails or returns anything else.
"""
function predict(native::NativeModel, x::Array{Float32})
    isempty(x) && throw(InputError("the tensor of shape $(shape_text(row_major_shape(x))) has no elements"))
    count = size(x, ndims(x))
    y = try
        Base.invokelatest(forward, native, x)
    catch e
        e isa InterruptException && rethrow()
        throw(ComputeError("$(native.file): $(Base.invokelatest(one_line, e))"))
    end
    y isa AbstractMatrix{<:Real} && size(y, 2) == count ||
        throw(ComputeError("$(native.file): the model returned $(summary(y)), not a matrix of (labels, $count)"))
    return y isa Array{Float32} ? y : Array{Float32}(y)
end

# Copy x: the model may keep its input or write to it, and x is memory of the pipe, which the next request overwrites.
function forward(native, x)
    native.agrees && return native.quick(copy(x))
    y = native.device.to_cpu(native.model(native.device.to_device(copy(x))))
    native.quick === nothing || compare_once!(native, x, y)
    return y
end

"Use the fast model from now on if it gives the model's answer `y` for `x`; drop it, with a warning on stderr, if not."
function compare_once!(native, x, y)
    difference = try
        largest_difference(native.quick(copy(x)), y)
    catch e
        e isa InterruptException && rethrow()
        one_line(e)
    end
    native.agrees = difference isa Real && difference <= FAST_TOLERANCE
    native.agrees && return nothing
    native.quick = nothing
    println(stderr, "fluxdrop: $(native.file) runs by Flux's own layers, as fluxdrop's give another answer: $difference")
    return nothing
end

"How far the answer of a fast model may be from the model's, relative to the largest number of that."
const FAST_TOLERANCE = 1.0f-4

function largest_difference(a, b)
    size(a) == size(b) || return Inf32
    scale = max(1.0f0, maximum(abs, b))
    return maximum(abs.(Float32.(a) .- Float32.(b)) ./ scale)
end
