# How the worker's process behaves: it ends with its parent and ignores Ctrl-C.

"""
    end_with_parent()

Ask Linux to kill this process when the thread that started it ends. Exit with 0 if the parent died before that.
Does nothing on other systems. There, the worker notices end of file on the pipe, but only after a running forward pass.
"""
function end_with_parent()
    Sys.islinux() || return nothing
    parent = ccall(:getppid, Cint, ())
    request, signal = 1, 9  # PR_SET_PDEATHSIG, SIGKILL
    ccall(:prctl, Cint, (Cint, Culong, Culong, Culong, Culong), request, signal, 0, 0, 0)
    ccall(:getppid, Cint, ()) == parent || exit(0)
    return nothing
end

"""
    ignore_interrupts(f)

Call `f` with SIGINT ignored, and leave the process group of the terminal. Ctrl-C then reaches the daemon alone, which
stops its worker. `f` has to end the process with `exit`: a SIGINT that was sent to this process directly is deferred,
and would be thrown after `f`.

Setting SIGINT to `SIG_IGN` has no effect, because Julia blocks the signal and takes it with `sigwait` on a thread of its
own (`signal_listener` in Julia's src/signals-unix.c).
"""
function ignore_interrupts(f)
    Sys.isunix() && ccall(:setpgid, Cint, (Cint, Cint), 0, 0)
    Base.exit_on_sigint(false)
    return disable_sigint(f)
end
