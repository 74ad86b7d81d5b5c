%% SPDX-License-Identifier: Apache-2.0
%% The Erlang peer: a gen_server that is asked, and processes as tasks.
%%
%% `prog --list` prints one `JOB IMPL` a line; `prog JOB [IMPL]` runs that job once, checks its own result and prints
%% `JOB IMPL VALUE UNIT`. The jobs run in a fresh process each: the first one belongs to the start-up.
-module(bench).
-behaviour(gen_server).
-export([main/0, init/1, handle_call/3, handle_cast/2]).

jobs() ->
    [{"actor_ask", 1, fun actor_ask/0}, {"executor_submit", 2, fun executor_submit/0}].

main() ->
    case init:get_plain_arguments() of
        ["--list"] ->
            [io:format("~s erlang~n", [Name]) || {Name, _, _} <- jobs()],
            halt(0);
        [Name | _] ->
            case lists:keyfind(Name, 1, jobs()) of
                {Name, Schedulers, Run} -> measure(Name, Schedulers, Run);
                false -> usage()
            end;
        [] ->
            usage()
    end.

usage() ->
    io:format(standard_error, "usage: prog --list | prog JOB [IMPL]~n", []),
    halt(2).

measure(Name, Schedulers, Run) ->
    erlang:system_flag(schedulers_online, Schedulers),
    Self = self(),
    {_, Watch} = spawn_opt(fun() -> Self ! {figure, Run()} end, [monitor]),
    receive
        {figure, Value} ->
            io:format("~s erlang ~.2f ns~n", [Name, Value]),
            halt(0);
        {'DOWN', Watch, process, _, Why} ->
            io:format(standard_error, "~p~n", [Why]),
            halt(3)
    end.

%% Nanoseconds an operation since Start.
per_op(Start, Ops) ->
    erlang:convert_time_unit(erlang:monotonic_time() - Start, native, nanosecond) / Ops.

sum_to(N) -> N * (N - 1) div 2.

%% ---- a request and its reply ----

init([]) -> {ok, none}.
handle_call(V, _From, State) -> {reply, V, State}.
handle_cast(_, State) -> {noreply, State}.

actor_ask() ->
    N = 500000,
    {ok, Server} = gen_server:start_link(?MODULE, [], []),
    Start = erlang:monotonic_time(),
    Sum = ask(Server, 0, N, 0),
    Ns = per_op(Start, N),
    Sum = sum_to(N),
    Ns.

ask(_, N, N, Sum) -> Sum;
ask(Server, I, N, Sum) -> ask(Server, I + 1, N, Sum + gen_server:call(Server, I)).

%% ---- a process a task, its result a message ----

executor_submit() ->
    {Rounds, Each} = {300, 1000},
    Start = erlang:monotonic_time(),
    Sum = rounds(Rounds, Each, 0),
    Ns = per_op(Start, Rounds * Each),
    Sum = 3 * Rounds * sum_to(Each),
    Ns.

rounds(0, _, Sum) -> Sum;
rounds(R, Each, Sum) -> rounds(R - 1, Each, Sum + join(submit(0, Each, self()))).

submit(N, N, _) ->
    [];
submit(I, N, Self) ->
    Ref = make_ref(),
    spawn(fun() -> Self ! {Ref, triple(I)} end),
    [Ref | submit(I + 1, N, Self)].

triple(X) -> 3 * X.

join(Refs) -> lists:foldl(fun(Ref, Sum) -> receive {Ref, V} -> Sum + V end end, 0, Refs).
