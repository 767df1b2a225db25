# The scripts as processes, with named pipes that a shell opens as descriptors 3 and 4.

# A new process does not inherit the active project, which may be the one that has Flux.
const PROJECT = Base.active_project() === nothing ? `` : `--project=$(dirname(Base.active_project()))`
const JULIA = `$(Base.julia_cmd()) --startup-file=no $PROJECT`
const SCRIPTS = normpath(joinpath(@__DIR__, ".."))

"""
Run `f(process, to, from)` with a worker process. Return the result of `f`, and the worker's exit code, stdout and stderr.
`before` is Julia code that the process runs before worker.jl.
"""
function with_worker(f; backend="plain", before="")
    mktempdir() do folder
        requests, answers = joinpath(folder, "requests"), joinpath(folder, "answers")
        run(`mkfifo $requests $answers`)
        script = joinpath(folder, "start.jl")
        write(script, before, "\ninclude($(repr(joinpath(SCRIPTS, "worker.jl"))))\n")
        shell = raw"""in=$1 out=$2; shift 2; exec "$@" 3<"$in" 4>"$out" """
        command = `sh -c $shell sh $requests $answers $JULIA $script --in 3 --out 4 --backend $backend`
        process = run(pipeline(command, stdin=devnull, stdout=joinpath(folder, "stdout"), stderr=joinpath(folder, "stderr")), wait=false)
        to = open(requests, "w")
        from = open(answers, "r")
        result = try
            f(process, to, from)
        finally
            close(to)
            wait(process)
            close(from)
        end
        return result, process.exitcode, read(joinpath(folder, "stdout"), String), read(joinpath(folder, "stderr"), String)
    end
end

function ask(to, from, kind, id, payload=UInt8[])
    write(to, frame(kind, id, payload))
    flush(to)
    return next_frame(from)
end

@testset "a worker process loads a model, predicts, survives failures and stops" begin
    x = numbers(5, 6, 3, 2)
    for backend in BACKENDS
        _, code, _, _ = with_worker(backend=backend.name) do process, to, from
            hello = next_frame(from)
            @test hello.kind == F.HELLO && occursin("backend=$(backend.name)\n", text(hello))
            @test failure("input", ask(to, from, F.PREDICT, 1, tensor_payload(x)))
            @test ask(to, from, F.LOAD, 2, codeunits(graph_path(RESIDUAL_FILE))).kind == F.LOADED
            @test failure("graph", ask(to, from, F.LOAD, 3, codeunits(graph_path(b"rubbish"))))
            for id in 4:6
                @test floats(ask(to, from, F.PREDICT, id, tensor_payload(x))) ≈ vec(residual_reference(x))
            end
            big = rand(UInt8, 2^20)
            @test ask(to, from, F.PING, 7, big).payload == big
            write(to, frame(F.STOP, 8))
        end
        @test code == 0
    end
end

@testset "a worker ignores SIGINT, and ends with 0 at the end of the pipe" begin
    _, code, _, _ = with_worker() do process, to, from
        next_frame(from)
        for id in 1:2
            kill(process, Base.SIGINT)
            @test ask(to, from, F.PING, id).kind == F.PONG
        end
    end
    @test code == 0
end

@testset "a worker ends with 1 after bytes that break the protocol" begin
    answer, code, _, _ = with_worker() do process, to, from
        next_frame(from)
        write(to, header(F.PING, 3, 2^40))
        flush(to)
        next_frame(from)
    end
    @test failure("protocol", answer) && code == 1
end

@testset "output of libraries does not reach the pipe" begin
    noise = "println(\"noise\"); @async (while true; println(\"more noise\"); println(stderr, \"trouble\"); sleep(0.01); end); sleep(0.05)"
    answer, code, printed, complaints = with_worker(before=noise) do process, to, from
        next_frame(from)
        ask(to, from, F.PING, 1, b"abc")
    end
    @test answer.kind == F.PONG && answer.payload == b"abc" && code == 0
    @test occursin("noise\nmore noise", printed) && occursin("trouble", complaints)
end

"The exit code, stdout and stderr of a script."
function run_script(arguments...)
    out, err = IOBuffer(), IOBuffer()
    process = run(pipeline(ignorestatus(`$JULIA $(collect(arguments))`), stdout=out, stderr=err))
    return process.exitcode, String(take!(out)), String(take!(err))
end

@testset "flux_model.jl prints a line of probabilities for each picture" begin
    mktempdir() do folder
        graph, batch, single = joinpath.(folder, ("m.graph", "batch.npy", "single.npy"))
        x = numbers(5, 6, 3, 2)
        write(graph, RESIDUAL_FILE)
        write(batch, npy("2, 3, 6, 5", x))
        write(single, npy("3, 6, 5", x[:, :, :, 1]))
        script = joinpath(SCRIPTS, "flux_model.jl")
        answer(out) = hcat([parse.(Float32, split(line)) for line in split(chomp(out), '\n')]...)
        for backend in BACKENDS
            code, out, err = run_script(script, graph, batch, "--backend", backend.name)
            @test code == 0 && err == "" && answer(out) ≈ residual_reference(x)
        end
        code, out, _ = run_script(script, graph, single, "--backend=plain")
        @test code == 0 && answer(out) ≈ residual_reference(x)[:, 1:1]
    end
end

@testset "a wrong command line or file gives one line on stderr and exit code 2" begin
    script, worker = joinpath(SCRIPTS, "flux_model.jl"), joinpath(SCRIPTS, "worker.jl")
    for arguments in ((script,), (script, "none.graph", "none.npy", "--backend=plain"), (script, "a", "b", "--backend=other"),
                      (script, "a", "b", "--foo", "1"), (script, script, script, "--backend=plain"), (worker, "--in", "x", "--out", "4"))
        code, out, err = run_script(arguments...)
        @test code == 2 && out == "" && startswith(err, "fluxdrop: ") && count(==('\n'), err) == 1
    end
end

FOUND.flux === nothing && @testset "the backend flux exits with 3 if Flux cannot be loaded" begin
    code, out, err = run_script(joinpath(SCRIPTS, "worker.jl"), "--in", "3", "--out", "4", "--backend", "flux")
    @test code == 3 && out == "" && startswith(err, "fluxdrop: Flux is not installed") && count(==('\n'), err) == 1
end

Sys.islinux() && @testset "a worker ends when its parent is killed, even if the pipe stays open" begin
    mktempdir() do folder
        requests, answers = joinpath(folder, "requests"), joinpath(folder, "answers")
        run(`mkfifo $requests $answers`)
        shell = raw"""in=$1 out=$2; shift 2; "$@" 3<"$in" 4>"$out" & wait"""
        command = `sh -c $shell sh $requests $answers $JULIA $(joinpath(SCRIPTS, "worker.jl")) --in 3 --out 4 --backend plain`
        parent = run(pipeline(command, stdin=devnull, stdout=devnull, stderr=devnull), wait=false)
        to, from = open(requests, "w"), open(answers, "r")
        next_frame(from)
        kill(parent, Base.SIGKILL)
        wait(parent)
        @test eof(from)
        close(to)
        close(from)
    end
end
