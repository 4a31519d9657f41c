//! `aquifer serve`: wires the store to its doors and waits to be stopped.

use std::sync::Arc;

use aquifer_flight::{FlightEnvironment, FlightMetrics, FlightServer};
use aquifer_http::{HttpEnvironment, HttpMetrics, HttpServer};
use aquifer_kafka::{AllowAll, KafkaEnvironment, KafkaMetrics, KafkaServer};
use aquifer_objects::{ObjectEnvironment, ObjectMetrics, Objects};
use aquifer_postgres::{PostgresEnvironment, PostgresMetrics, PostgresServer};
use aquifer_query::{EngineCommand, Queries, QueryEnvironment, QueryMetrics};
use aquifer_stream::{Environment, StreamStore};
use aquifer_tables::{TableEnvironment, TableMetrics, Tables};
use prometheus_client::registry::Registry;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::allocator;
use crate::cli::{LogFormat, ServeArguments};
use crate::config::{self, Config, LogOptions};
use crate::failure::Failure;
use crate::output;

pub(crate) async fn run(arguments: ServeArguments) -> Result<(), Failure> {
    let config = config::of_serve(&arguments)?;
    start_log(&config.log)?;
    // Before anything is opened, so that no signal finds the default handler.
    let mut signals = Signals::new()?;
    let mut registry = Registry::with_prefix("aquifer");
    let http_metrics = HttpMetrics::register(&mut registry);
    let kafka_metrics = KafkaMetrics::register(&mut registry);
    let postgres_metrics = PostgresMetrics::register(&mut registry);
    let flight_metrics = FlightMetrics::register(&mut registry);
    let query_metrics = QueryMetrics::register(&mut registry);
    let table_metrics = TableMetrics::register(&mut registry);
    let object_metrics = ObjectMetrics::register(&mut registry);
    let environment = Environment::real();
    let (clock, random) = (environment.clock.clone(), environment.random.clone());
    let store = tokio::select! {
        store = StreamStore::open(config.store.clone(), environment, &mut registry) => {
            store.map_err(start_failure)?
        }
        () = signals.stop() => return Ok(()),
    };
    let queries = Queries::new(
        store.clone(),
        config.query.clone(),
        QueryEnvironment {
            clock: clock.clone(),
            random: random.clone(),
            metrics: query_metrics,
            engine: engine_command(&config)?,
        },
    );
    let kafka_environment = KafkaEnvironment {
        clock: clock.clone(),
        random: random.clone(),
        metrics: kafka_metrics,
        authorizer: Arc::new(AllowAll),
        token_validator: None,
    };
    let table_environment =
        TableEnvironment { clock: clock.clone(), random: random.clone(), metrics: table_metrics };
    let tables = config
        .tables
        .enabled
        .then(|| Tables::new(store.clone(), config.tables.clone(), table_environment));
    let object_environment =
        ObjectEnvironment { clock: clock.clone(), random: random.clone(), metrics: object_metrics };
    let objects = Objects::start(store.clone(), config.objects.clone(), object_environment);
    let postgres_environment = PostgresEnvironment {
        clock: clock.clone(),
        random: random.clone(),
        metrics: postgres_metrics,
        queries: queries.clone(),
    };
    let flight_environment = FlightEnvironment {
        clock: clock.clone(),
        random: random.clone(),
        metrics: flight_metrics,
        queries: queries.clone(),
    };
    let environment = HttpEnvironment {
        clock,
        random,
        queries: queries.clone(),
        tables,
        objects: Some(objects.clone()),
        metrics: http_metrics,
        registries: vec![Arc::new(registry)],
    };
    let listen = config.http.listen;
    let http = match HttpServer::start(store.clone(), config.http.clone(), environment).await {
        Ok(http) => http,
        Err(error) => {
            store.shutdown().await?;
            return Err(Failure::with_next(
                format!("HTTP cannot listen on {listen}: {error}"),
                "stop what listens there, or choose another address with --listen",
            ));
        }
    };
    let kafka = match start_kafka(&store, &config, kafka_environment).await {
        Ok(kafka) => kafka,
        Err(failure) => {
            http.stop().await;
            store.shutdown().await?;
            return Err(failure);
        }
    };
    let postgres = match start_postgres(&store, &config, postgres_environment).await {
        Ok(postgres) => postgres,
        Err(failure) => {
            http.stop().await;
            if let Some(kafka) = kafka {
                kafka.stop().await;
            }
            store.shutdown().await?;
            return Err(failure);
        }
    };
    let flight = match start_flight(&store, &config, flight_environment).await {
        Ok(flight) => flight,
        Err(failure) => {
            http.stop().await;
            if let Some(kafka) = kafka {
                kafka.stop().await;
            }
            if let Some(postgres) = postgres {
                postgres.stop().await;
            }
            store.shutdown().await?;
            return Err(failure);
        }
    };
    announce(&config, &http, kafka.as_ref(), postgres.as_ref(), flight.as_ref())?;
    tokio::select! {
        () = signals.stop() => {}
        () = allocator::give_back() => {}
    }
    tracing::info!("stopping: no new requests, those under way are finished");
    let stopped = async {
        let kafka = async {
            if let Some(kafka) = kafka {
                kafka.stop().await;
            }
        };
        let postgres = async {
            if let Some(postgres) = postgres {
                postgres.stop().await;
            }
        };
        let flight = async {
            if let Some(flight) = flight {
                flight.stop().await;
            }
        };
        // The doors first: what they answer still needs the store. Uploads have no
        // end of their own.
        tokio::join!(http.stop(), kafka, postgres, flight, objects.stop());
        queries.stop().await;
        store.shutdown().await
    };
    tokio::select! {
        result = stopped => result?,
        () = signals.stop() => {
            return Err(Failure::failed(
                "stopped at once by a second signal; the next start recovers the journal",
            ));
        }
    }
    tracing::info!("stopped");
    Ok(())
}

async fn start_kafka(
    store: &StreamStore,
    config: &Config,
    environment: KafkaEnvironment,
) -> Result<Option<KafkaServer>, Failure> {
    if !config.kafka.enabled {
        return Ok(None);
    }
    let started = KafkaServer::start(store.clone(), config.kafka.clone(), environment).await;
    started.map(Some).map_err(|error| {
        Failure::with_next(
            format!("the Kafka protocol cannot be served: {error}"),
            "stop what listens there, choose another address with --kafka-listen, or switch it \
             off with --set kafka.enabled=false",
        )
    })
}

async fn start_postgres(
    store: &StreamStore,
    config: &Config,
    environment: PostgresEnvironment,
) -> Result<Option<PostgresServer>, Failure> {
    if !config.postgres.enabled {
        return Ok(None);
    }
    let started = PostgresServer::start(store.clone(), config.postgres.clone(), environment).await;
    started.map(Some).map_err(|error| {
        Failure::with_next(
            format!("the PostgreSQL protocol cannot be served: {error}"),
            "stop what listens there, choose another address with --postgres-listen, or switch it \
             off with --set postgres.enabled=false",
        )
    })
}

async fn start_flight(
    store: &StreamStore,
    config: &Config,
    environment: FlightEnvironment,
) -> Result<Option<FlightServer>, Failure> {
    if !config.flight.enabled {
        return Ok(None);
    }
    let started = FlightServer::start(store.clone(), config.flight.clone(), environment).await;
    started.map(Some).map_err(|error| {
        Failure::with_next(
            format!("Arrow Flight SQL cannot be served: {error}"),
            "stop what listens there, choose another address with --flight-listen, or switch it \
             off with --set flight.enabled=false",
        )
    })
}

/// The engine is this program again. It needs the environment for what opens
/// tier 2, but not the token that opens this server.
fn engine_command(config: &Config) -> Result<EngineCommand, Failure> {
    // Its file may be replaced while it runs: server and engine stay of one
    // binary all the same.
    let program = match cfg!(target_os = "linux") {
        true => "/proc/self/exe".into(),
        false => std::env::current_exe().map_err(|error| {
            Failure::failed(format!("the path of this program cannot be told: {error}"))
        })?,
    };
    Ok(EngineCommand {
        program,
        name: "aquifer".to_owned(),
        arguments: vec!["engine".to_owned()],
        variables_left_out: vec![config::TOKEN_VARIABLE.to_owned()],
        temporary_directory: std::env::temp_dir(),
        log_filter: config.log.filter.clone(),
    })
}

fn start_failure(error: aquifer_stream::Error) -> Failure {
    Failure::with_next(error.to_string(), "`aquifer doctor` checks this set-up step by step")
}

/// Says where everything is, for people and for scripts that wait for it.
fn announce(
    config: &Config,
    http: &HttpServer,
    kafka: Option<&KafkaServer>,
    postgres: Option<&PostgresServer>,
    flight: Option<&FlightServer>,
) -> Result<(), Failure> {
    let data = std::path::absolute(&config.store.data)?;
    let mut lines = vec![
        format!("data in {}", data.display()),
        format!("tier 2 in {}", config.store.tier2_url()),
        format!("http listening on http://{}", http.address()),
    ];
    let addresses = kafka.map(KafkaServer::addresses).unwrap_or_default();
    lines.extend(addresses.iter().map(|address| format!("kafka listening on {address}")));
    let address = postgres.map(PostgresServer::address);
    lines.extend(address.iter().map(|address| format!("postgres listening on {address}")));
    let address = flight.map(FlightServer::address);
    lines.extend(address.iter().map(|address| format!("flight listening on {address}")));
    for line in lines {
        // Whoever started it may have read enough: that is no reason to stop.
        if output::line(&line).is_err() {
            tracing::debug!(%line, "standard output is closed");
        }
    }
    Ok(())
}

fn start_log(options: &LogOptions) -> Result<(), Failure> {
    let filter: Targets = options.filter.parse().map_err(|error| {
        Failure::failed(format!("log.filter {} is not valid: {error}", options.filter))
    })?;
    let log = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE);
    let log = log.with_writer(std::io::stderr);
    match options.format {
        LogFormat::Text => {
            let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
            log.with_ansi(is_terminal).finish().with(filter).init();
        }
        LogFormat::Json => log.json().flatten_event(true).finish().with(filter).init(),
    }
    Ok(())
}

/// The signals that ask for a graceful stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
