# Julia's syntax for numbers, tuples, calls and comments.

"A number, or a tuple or vector of numbers, as Julia code."
literal(x::Float32) = isinteger(x) && abs(x) < 1.0f6 ? string(Int(x), "f0") : repr(x)
literal(x::Union{Integer,Float64}) = repr(x)
literal(x::Tuple) = length(x) == 1 ? "($(literal(x[1])),)" : string("(", join(map(literal, x), ", "), ")")
literal(x::Vector) = string("[", join(map(literal, x), ", "), "]")

"One number if all of `xs` are the same, else a tuple."
compact(xs::Tuple) = all(==(first(xs)), xs) ? literal(first(xs)) : literal(xs)

"`name(arguments...; options...)`. Empty arguments, and options with the value `nothing`, are left out."
function call(name, arguments...; options...)
    given = filter(!isempty, collect(String, arguments))
    named = String["$key=$value" for (key, value) in options if value !== nothing]
    return string(name, "(", join(given, ", "), isempty(named) ? "" : "; $(join(named, ", "))", ")")
end

"Indent every line of `text` by `levels` of four spaces."
indent(text, levels=1) = join([isempty(line) ? line : " "^4levels * line for line in split(text, '\n')], '\n')

"""
A name from the model as the contents of a comment. Only printable ASCII is kept, so that no name can end the comment and
be run.
"""
comment(name) = String(filter(c -> ' ' <= c <= '~', collect(name))[1:min(end, 80)])
