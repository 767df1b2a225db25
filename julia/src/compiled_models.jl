# Native code of single models. `fluxdrop model add` and `model use` make a package that runs the model once while Julia
# precompiles it, so that its cache file has the code of that model's layers. It contains nothing else.

"A package that is among Flux's dependencies."
const PRECOMPILE_TOOLS = Base.PkgId(Base.UUID("aea7be01-6a6a-4083-8856-8a6e6704d82a"), "PrecompileTools")

"The name of the package for the model of a graph file with this `digest`, and its UUID, which Julia wants."
compiled_model_id(digest) =
    Base.PkgId(Base.UUID(parse(UInt128, digest[1:32]; base=16)), "FluxdropModel_" * digest[1:16])

"""
    load_compiled_model(folder, digest) -> Bool

Load the native code that is kept for a model in `folder`, if there is any that fits this Julia and this package. Return
whether there is. Does not throw.
"""
function load_compiled_model(folder, digest)
    isdefined(Base, :isprecompiled) && !isempty(folder) || return false
    id = compiled_model_id(digest)
    path = joinpath(folder, id.name)
    isfile(joinpath(path, "Project.toml")) || return false
    try
        path in LOAD_PATH || push!(LOAD_PATH, path)
        Base.isprecompiled(id) || return false
        Base.require(id)
        return true
    catch e
        println(stderr, "fluxdrop: the native code that is kept for this model cannot be loaded: ", one_line(e))
        return false
    end
end

"""
    write_compiled_model(folder, graph) -> digest

Write the package for the model in the file `graph` to `folder`, and let Julia precompile it, which takes as long as the
model's first forward pass; do nothing if there is such a package already. Throws what [`read_graph`](@ref) throws, and an error where the model does not run.
"""
function write_compiled_model(folder, graph)
    digest = graph_digest(graph)
    load_compiled_model(folder, digest) && return digest
    id = compiled_model_id(digest)
    path = joinpath(folder, id.name)
    mkpath(joinpath(path, "src"))
    own = Base.PkgId(FluxdropWorker)
    # Without it, Julia keeps little of the code that is called by dynamic dispatch, as layers are.
    has_tools = Base.locate_package(PRECOMPILE_TOOLS) !== nothing
    run = "FluxdropWorker.run_once(ENV[\"FLUXDROP_GRAPH\"])"
    write(joinpath(path, "src", "$(id.name).jl"), """
        module $(id.name)
        import FluxdropWorker
        $(has_tools ? "using PrecompileTools: @compile_workload\n@compile_workload $run" :
          "FluxdropWorker.precompiling() && $run")
        end
        """)
    write(joinpath(path, "Project.toml"), """
        name = "$(id.name)"
        uuid = "$(id.uuid)"
        version = "0.1.0"

        [deps]
        FluxdropWorker = "$(own.uuid)"
        $(has_tools ? "PrecompileTools = \"$(PRECOMPILE_TOOLS.uuid)\"" : "")
        """)
    path in LOAD_PATH || push!(LOAD_PATH, path)
    withenv(() -> Base.compilecache(id), "FLUXDROP_GRAPH" => abspath(graph))
    return digest
end

"Build the model of a graph file of the plain layers and run it on one input and on two, where it takes two."
function run_once(graph)
    model = build!(read_graph(graph), plain_backend(""))
    for batch in (model.shape[1] == -1 ? (1, 2) : (model.shape[1],))
        sizes = [batch; [n == -1 ? 32 : n for n in model.shape[2:end]]]
        predict(model, zeros(Float32, reverse(sizes)...))
    end
    PlainLayers.empty_buffers!()
    return nothing
end
