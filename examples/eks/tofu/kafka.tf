# MSK in place of Amazon MQ: kafka = true.
resource "aws_security_group" "kafka" {
  count = var.kafka ? 1 : 0

  name_prefix = "${var.name}-kafka-"
  description = "Kafka with SASL/SCRAM, for the nodes of ${var.name}"
  vpc_id      = module.vpc.vpc_id

  ingress {
    description     = "SASL/SCRAM over TLS"
    from_port       = 9096
    to_port         = 9096
    protocol        = "tcp"
    security_groups = [module.eks.node_security_group_id]
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_msk_cluster" "kafka" {
  count = var.kafka ? 1 : 0

  cluster_name           = var.name
  kafka_version          = "3.8.x"
  number_of_broker_nodes = 3

  broker_node_group_info {
    instance_type   = "kafka.m7g.large"
    client_subnets  = module.vpc.private_subnets
    security_groups = [aws_security_group.kafka[0].id]

    storage_info {
      ebs_storage_info {
        volume_size = 100
      }
    }
  }

  client_authentication {
    sasl {
      scram = true
    }
  }
}

resource "random_password" "kafka" {
  count = var.kafka ? 1 : 0

  length  = 32
  special = false
}

# MSK takes credentials only from secrets with this prefix and a key of the account's own.
resource "aws_kms_key" "kafka" {
  count = var.kafka ? 1 : 0

  description         = "Credentials of ${var.name} for Kafka"
  enable_key_rotation = true
}

resource "aws_secretsmanager_secret" "kafka" {
  count = var.kafka ? 1 : 0

  name_prefix = "AmazonMSK_${var.name}-"
  kms_key_id  = aws_kms_key.kafka[0].key_id
}

resource "aws_secretsmanager_secret_version" "kafka" {
  count = var.kafka ? 1 : 0

  secret_id     = aws_secretsmanager_secret.kafka[0].id
  secret_string = jsonencode({ username = var.name, password = random_password.kafka[0].result })
}

resource "aws_msk_single_scram_secret_association" "kafka" {
  count = var.kafka ? 1 : 0

  cluster_arn = aws_msk_cluster.kafka[0].arn
  secret_arn  = aws_secretsmanager_secret_version.kafka[0].secret_id
}

output "kafka_manifests" {
  description = "Policy and Secret for Kafka; empty without it."
  sensitive   = true
  value = var.kafka ? templatefile("${path.module}/../manifests/kafka.yaml.tftpl", {
    brokers  = jsonencode(split(",", aws_msk_cluster.kafka[0].bootstrap_brokers_sasl_scram))
    username = var.name
    password = random_password.kafka[0].result
  }) : ""
}
